"""A campaign whose driver, Snakemake and jobs are killed by SIGKILL ends as if nothing had happened."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from campaign import Campaign, heed_signals, signal_all
from mlip_auto.processes import find_processes

pytestmark = pytest.mark.slow

# Victim, step and generation of each kill, in the order in which the campaign comes by.
KILLS = [
    ("driver", "label_structures", 0),
    ("snakemake", "label_structures", 0),
    ("job", "label_structures", 0),
    ("job", "fit_potential", 0),
    ("driver", "fit_potential", 0),
    ("snakemake", "run_md", 0),
    ("snakemake", "fit_potential", 1),
    ("driver", "run_md", 1),
    ("job", "run_md", 1),
]


def make_campaign(root: Path) -> Campaign:
    return Campaign(root, "--cores", "2")


def reach(campaign: Campaign, rule: str, generation: int) -> subprocess.Popen:
    """Start the campaign and return its driver when the step is at work; labelling: stopped after a new label."""
    since = time.time()
    labels = len(campaign.stored())
    driver = campaign.start()
    campaign.wait_until(
        lambda: campaign.is_in(rule, generation, since) or driver.poll() is not None,
        f"{rule} of generation {generation}",
    )
    assert driver.poll() is None, driver.communicate()[0]
    if rule == "label_structures":
        campaign.stop_between_labels(labels)
    return driver


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    campaign = make_campaign(tmp_path_factory.mktemp("undisturbed"))
    code, output = campaign.finish()
    assert code == 3, output
    assert "loop.max_generations (2) reached" in output
    assert campaign.outcomes()[0]["md_900K"][0] == "halted"
    return campaign


def test_killed_again_and_again(undisturbed, tmp_path):
    campaign = make_campaign(tmp_path)
    snapshots = []
    for victim, rule, generation in KILLS:
        driver = reach(campaign, rule, generation)
        if victim == "driver":
            driver.kill()
        elif victim == "snakemake":
            campaign.snakemake().kill()
        else:
            campaign.job(rule).kill()
        signal_all(campaign.jobs(rule), signal.SIGCONT)  # a job whose neighbour was killed goes on
        output, _ = driver.communicate(timeout=campaign.patience)
        campaign.wait_until(lambda: find_processes(tmp_path) == [], "the end of all processes of a killed campaign")
        assert driver.returncode == (-signal.SIGKILL if victim == "driver" else 1), output
        if victim == "snakemake":
            assert "Snakemake was ended by SIGKILL" in output
        if victim == "job":
            assert f"{rule} failed" in output
        assert not campaign.paths.generation(generation).summary.exists()
        snapshots.append((campaign.stored(), campaign.records()))

    code, output = campaign.finish()

    assert (code, output.splitlines()[-1]) == (3, last_line_of(undisturbed)), output
    assert find_processes(tmp_path) == []
    assert not campaign.paths.driver_lock.exists()
    stored, records = campaign.stored(), campaign.records()
    for stored_then, records_then in snapshots:
        assert stored_then.items() <= stored.items()
        for file in stored_then:
            assert file.stem in records_then or records[file.stem]["from_store"]
    assert sorted(file.stem for file in stored) == sorted(records)
    assert any(file.stem not in records_then for stored_then, records_then in snapshots for file in stored_then)
    assert campaign.selected() == undisturbed.selected()
    assert campaign.outcomes() == undisturbed.outcomes()


def last_line_of(campaign: Campaign) -> str:
    """The closing line of a campaign that has ended, said again."""
    code, output = campaign.finish()
    assert code == 3
    return output.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_driver_is_refused_and_a_signal_stops_the_first_cleanly(tmp_path, number):
    campaign = make_campaign(tmp_path)
    driver = reach(campaign, "select_structures", 0)
    code, output = campaign.finish()
    assert code == 1
    assert f"is run by pid {driver.pid}" in output
    assert driver.poll() is None and campaign.snakemake().is_running()

    os.kill(driver.pid, number)
    output, _ = driver.communicate(timeout=campaign.patience)
    assert driver.returncode == 128 + number
    assert f"Stopped by {number.name}; all jobs have ended." in output
    assert find_processes(tmp_path) == []
    assert not campaign.paths.driver_lock.exists()
    assert list((tmp_path / ".snakemake" / "locks").glob("*")) == []


def start_in_terminal(campaign: Campaign) -> tuple[subprocess.Popen, int]:
    """The driver in a terminal of its own, and the terminal's other end: who closes it closes the terminal."""
    ours, its = pty.openpty()

    def make_it_the_terminal() -> None:
        heed_signals()
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    command = campaign.command("run", *campaign.options)
    driver = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, start_new_session=True, preexec_fn=make_it_the_terminal
    )
    os.close(its)
    os.set_blocking(ours, False)
    return driver, ours


def test_after_a_closed_terminal_status_says_what_happened(tmp_path):
    campaign = make_campaign(tmp_path)
    since = time.time()
    driver, terminal = start_in_terminal(campaign)

    def labels_are_at_work() -> bool:
        with suppress(BlockingIOError):
            os.read(terminal, 2**16)  # the bars; a terminal that takes nothing more would stop the driver
        return campaign.is_in("label_structures", 0, since)

    campaign.wait_until(labels_are_at_work, "labels at work")
    os.close(terminal)
    driver.wait(timeout=campaign.patience)
    assert find_processes(tmp_path) == []
    assert not campaign.paths.driver_lock.exists()
    assert list((tmp_path / ".snakemake" / "locks").glob("*")) == []
    done = subprocess.run(campaign.command("status"), capture_output=True, text=True, check=True)
    words = "Stopped by SIGHUP; all jobs have ended. The same command goes on from here."
    assert f"The last run said: {words}" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("no driver is running. Next: `mlip-auto run`.")


def test_status_of_a_stopped_campaign(undisturbed):
    done = subprocess.run(undisturbed.command("status", "--json"), capture_output=True, text=True, check=True)
    status = json.loads(done.stdout)
    assert status["phase"] == "STOPPED"
    assert [summary["generation"] for summary in status["generations"]] == [0, 1]
