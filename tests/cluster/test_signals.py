"""A driver that is asked to stop says what became of its jobs in Slurm; its successor and `status` see them."""

import json
import os
import signal
import subprocess

import pytest

from campaign import signal_all
from mlip_auto.slurm import list_jobs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_jobs_of_a_stopped_driver_go_on_until_ctrl_c_cancels_them(make_campaign, number):
    campaign = make_campaign()
    driver = campaign.start()
    campaign.wait_until(
        lambda: campaign.jobs("generate_candidates") or driver.poll() is not None, "a job at work", every=0.1
    )
    assert driver.poll() is None, driver.communicate()[0]
    signal_all(campaign.jobs("generate_candidates"), signal.SIGSTOP)
    os.kill(driver.pid, number)
    output, _ = driver.communicate(timeout=campaign.patience)
    assert driver.returncode == 128 + number, output
    (job,) = list_jobs(campaign.root)
    assert (job.state, job.prefix, job.rule) == ("RUNNING", "tiny_g000", "generate_candidates")
    assert f"Stopped by {number.name}; 1 Slurm job (1 generate_candidates: {job.id}) go on" in output

    status = subprocess.run(campaign.command("status", "--json"), capture_output=True, text=True, check=True).stdout
    assert json.loads(status)["slurm"] == {"running": 1, "pending": 0, "rules": {"generate_candidates": 1}}

    driver = campaign.start()
    assert any(line.startswith("Left by an earlier run: 1 Slurm job") for line in driver.stdout)
    os.kill(driver.pid, signal.SIGINT)
    output, _ = driver.communicate(timeout=campaign.patience)
    assert driver.returncode == 128 + signal.SIGINT, output
    assert f"1 Slurm job (1 generate_candidates: {job.id}) are cancelled" in output
    campaign.wait_until(lambda: not list_jobs(campaign.root), "the end of the cancelled job", every=0.5)
