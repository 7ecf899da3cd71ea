"""Whatever ends a walker, the campaign goes on: a crash, a halt at its first step, a killed job, a time limit."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from mlip_auto.lammps_restart import list_restarts
from mlip_auto.paths import CampaignPaths
from mlip_auto.processes import find_processes
from mlip_auto.structures import read_json, read_structures

pytestmark = pytest.mark.slow

TINY = Path(__file__).with_name("tiny.yaml")
PATIENCE = 300.0  # s for anything that is waited for

SLOW = {
    "name": "slow",
    "structure": {"prototype": "fcc", "a": 4.05, "supercell": [2, 2, 2]},
    "temperatures": [100],
    "steps": 6000,
}
# An unknown density; and a heat that brings atoms closer than allowed before gamma is looked at again.
SQUEEZED = {"name": "squeezed", "structure": SLOW["structure"] | {"a": 3.7}, "temperatures": [100]}
HOT = {"name": "hot", "structure": SLOW["structure"], "temperatures": [30000]}


class Campaign:
    def __init__(self, root: Path, walkers: list[dict], confirmations: int, **exploration):
        self.root, self.paths = root, CampaignPaths(root)
        content = yaml.safe_load(TINY.read_text())
        content["exploration"] |= {"walkers": walkers, **exploration}
        content["lammps"] = {"engine": "library", "restart_every": 20}
        content["loop"]["confirmations"] = confirmations
        self.config = root / "config.yaml"
        self.config.write_text(yaml.safe_dump(content))

    def start(self) -> subprocess.Popen:
        command = [Path(sys.executable).with_name("mlip-auto"), "run", "--cores", "2"]
        command += ["--configfile", self.config, "--directory", self.root]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(self) -> tuple[int, str]:
        driver = self.start()
        output, _ = driver.communicate(timeout=PATIENCE)
        return driver.returncode, output

    def catch_lammps(self, walker: str) -> psutil.Process:
        """The LAMMPS of a walker of generation 0, stopped (SIGSTOP) with a restart file behind it."""
        scratch = self.paths.work(0, f"md/{walker}")

        def find() -> psutil.Process | None:
            if not list_restarts(scratch):
                return None
            return next((process for process in find_processes(self.root) if runs_in(process, scratch)), None)

        process = wait_for(find, f"a restart file of {walker}")
        process.send_signal(signal.SIGSTOP)
        assert not self.paths.generation(0).walker(walker).outcome.exists()
        return process


def runs_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder.resolve())
    except psutil.Error:
        return False


def wait_for(find: Callable[[], psutil.Process | None], what: str) -> psutil.Process:
    deadline = time.monotonic() + PATIENCE
    while (found := find()) is None:
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def test_crash_halt_at_the_first_step_and_killed_job_lead_to_a_next_generation(tmp_path):
    campaign = Campaign(tmp_path, [SLOW, SQUEEZED, HOT], confirmations=0)
    driver = campaign.start()
    lammps = campaign.catch_lammps("slow_100K")
    psutil.Process(lammps.ppid()).kill()  # the job, as a scheduler does at its time limit; LAMMPS dies with it
    output, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 1, output
    assert "run_md" in output

    code, output = campaign.finish()
    assert code == 3, output  # loop.max_generations
    first = read_json(campaign.paths.generation(0).summary)
    slow, squeezed, hot = (first["walkers"][name] for name in ("slow_100K", "squeezed_100K", "hot_30000K"))
    assert (slow["outcome"], slow["step"], slow["attempts"]) == ("completed", 6000, 2)
    assert (squeezed["outcome"], squeezed["step"]) == ("halted", 0)
    assert (hot["outcome"], hot["step"]) == ("crashed", 0)
    assert hot["reason"] == "atoms below minimum distance at step 10"
    assert first["decision"] == "next_generation"
    cut_from = {atoms.info["walker"] for atoms in read_structures(campaign.paths.generation(0).extracted)}
    assert cut_from == {"squeezed_100K", "hot_30000K"}
    assert read_json(campaign.paths.generation(1).summary)["labelled"] > 0


def test_a_walker_out_of_time_goes_on_in_the_same_generation(tmp_path):
    campaign = Campaign(tmp_path, [SLOW], confirmations=0, max_minutes=0.4)
    driver = campaign.start()
    campaign.catch_lammps("slow_100K")  # and left so until its time is over
    output, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, output
    assert "MD that ran out of time goes on" in output
    walker = read_json(campaign.paths.generation(0).summary)["walkers"]["slow_100K"]
    assert (walker["outcome"], walker["step"], walker["start_step"]) == ("completed", 6000, 0)
    assert walker["attempts"] >= 2
    assert not campaign.paths.generation(1).directory.exists()
