"""A campaign whose driver, Snakemake and jobs are killed by SIGKILL ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mlip_auto.paths import CampaignPaths
from mlip_auto.processes import find_processes
from mlip_auto.structures import read_json, read_structures

pytestmark = pytest.mark.slow

TINY = Path(__file__).with_name("tiny.yaml")
GENERATIONS = 2
PATIENCE = 90.0  # s for anything that is waited for; a step of this campaign takes 1 to 4 s

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


class Campaign:
    """tiny.yaml in a folder, run by `mlip-auto run` as a user would."""

    def __init__(self, root: Path):
        self.root = root
        self.paths = CampaignPaths(root)

    def start(self) -> subprocess.Popen:
        command = [Path(sys.executable).with_name("mlip-auto"), "run", "--cores", "2"]
        command += ["--configfile", TINY, "--directory", self.root]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed_signals
        )

    def snakemake(self) -> psutil.Process:
        (process,) = [process for process in find_processes(self.root) if process.cmdline()[1:3] == ["-m", "snakemake"]]
        return process

    def jobs(self, rule: str) -> list[psutil.Process]:
        """The processes of the rule's script and what they forked, the oldest first."""
        jobs = [process for process in find_processes(self.root) if runs_script(process, rule)]
        return sorted(jobs, key=lambda process: process.create_time())

    def job(self, rule: str) -> psutil.Process | None:
        return next(iter(self.jobs(rule)), None)

    def is_in(self, rule: str, generation: int, since: float) -> bool:
        """The rule's script is past its imports (it opens its log then) and still at work."""
        logs = (self.root / "logs" / f"gen_{generation:03d}").glob(f"{rule}*.log")
        return any(log.stat().st_mtime >= since for log in logs) and self.job(rule) is not None

    def stored(self) -> dict[Path, tuple[bytes, int, int]]:
        """Content, time and inode of each finished label: a label that was computed again would have a new inode."""
        files = (self.root / "store").glob("*/??/*.json")
        return {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in files}

    def records(self) -> dict[str, dict]:
        files = self.paths.results.glob("gen_*/dft/*.json")
        return {identifier: record for file in files for identifier, record in read_json(file)["structures"].items()}

    def selected(self) -> list[list[str]]:
        files = [self.paths.generation(number).selected for number in range(GENERATIONS)]
        return [[atoms.info["structure_id"] for atoms in read_structures(file)] for file in files]

    def outcomes(self) -> list[dict[str, tuple]]:
        """Outcome, last step and atom of each walker by generation."""
        summaries = [read_json(self.paths.generation(number).summary) for number in range(GENERATIONS)]
        keys = ("outcome", "step", "atom")
        return [
            {name: tuple(walker[key] for key in keys) for name, walker in summary["walkers"].items()}
            for summary in summaries
        ]


def heed_signals() -> None:
    """As from a terminal: whoever started the tests in the background (`&`, nohup) has had these signals ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def runs_script(process: psutil.Process, rule: str) -> bool:
    try:
        return any(word.endswith(f".{rule}.py") for word in process.cmdline())
    except psutil.Error:
        return False


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def stop_between_labels(campaign: Campaign, labels: int) -> None:
    """Let the labelling jobs run in slices of some ms until a new label is stored, and leave them stopped.

    Labels of EMT take some 20 ms: whoever only watched would often kill when the whole shard is done already.
    """

    def is_stored() -> bool:
        jobs = campaign.jobs("label_structures")
        signal_all(jobs, signal.SIGCONT)
        time.sleep(0.002)
        signal_all(jobs, signal.SIGSTOP)
        return len(campaign.stored()) > labels

    wait_until(is_stored, "a new label")


def signal_all(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def finish(campaign: Campaign) -> tuple[int, str]:
    driver = campaign.start()
    output, _ = driver.communicate(timeout=2 * PATIENCE)
    return driver.returncode, output


def reach(campaign: Campaign, rule: str, generation: int) -> subprocess.Popen:
    """Start the campaign and return its driver when the step is at work; labelling: stopped after a new label."""
    since = time.time()
    labels = len(campaign.stored())
    driver = campaign.start()
    wait_until(
        lambda: campaign.is_in(rule, generation, since) or driver.poll() is not None,
        f"{rule} of generation {generation}",
    )
    assert driver.poll() is None, driver.communicate()[0]
    if rule == "label_structures":
        stop_between_labels(campaign, labels)
    return driver


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    campaign = Campaign(tmp_path_factory.mktemp("undisturbed"))
    code, output = finish(campaign)
    assert code == 3, output
    assert "loop.max_generations (2) reached" in output
    assert campaign.outcomes()[0]["md_900K"][0] == "halted"
    return campaign


def test_killed_again_and_again(undisturbed, tmp_path):
    campaign = Campaign(tmp_path)
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
        output, _ = driver.communicate(timeout=PATIENCE)
        wait_until(lambda: find_processes(tmp_path) == [], "the end of all processes of a killed campaign")
        assert driver.returncode == (-signal.SIGKILL if victim == "driver" else 1), output
        if victim == "snakemake":
            assert "Snakemake was ended by SIGKILL" in output
        if victim == "job":
            assert f"{rule} failed" in output
        assert not campaign.paths.generation(generation).summary.exists()
        snapshots.append((campaign.stored(), campaign.records()))

    code, output = finish(campaign)

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
    code, output = finish(campaign)
    assert code == 3
    return output.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_driver_is_refused_and_a_signal_stops_the_first_cleanly(tmp_path, number):
    campaign = Campaign(tmp_path)
    driver = reach(campaign, "select_structures", 0)
    code, output = finish(campaign)
    assert code == 1
    assert f"is run by pid {driver.pid}" in output
    assert driver.poll() is None and campaign.snakemake().is_running()

    os.kill(driver.pid, number)
    output, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 128 + number
    assert f"Stopped by {number.name}; all jobs have ended." in output
    assert find_processes(tmp_path) == []
    assert not campaign.paths.driver_lock.exists()
    assert list((tmp_path / ".snakemake" / "locks").glob("*")) == []


def test_status_of_a_stopped_campaign(undisturbed):
    command = [Path(sys.executable).with_name("mlip-auto"), "status", "--json"]
    command += ["--configfile", TINY, "--directory", undisturbed.root]
    status = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert status["phase"] == "STOPPED"
    assert [summary["generation"] for summary in status["generations"]] == [0, 1]
