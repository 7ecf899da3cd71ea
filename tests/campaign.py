"""A campaign run by `mlip-auto run` as a user would, and a look at its files and processes: for tests that kill it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from mlip_auto.paths import CampaignPaths
from mlip_auto.processes import end_processes, find_processes
from mlip_auto.structures import read_json, read_structures

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"


class Campaign:
    """A config in a folder, and the options with which it is run.

    Parameters
    ----------
    patience
        Seconds that anything is waited for; a whole campaign twice as long.
    """

    def __init__(self, root: Path, *options: str | Path, config: Path = TINY, patience: float = 240.0):
        self.root = root
        self.config = config
        self.options = options
        self.patience = patience
        self.paths = CampaignPaths(root)
        self.drivers: list[subprocess.Popen] = []

    def command(self, name: str, *options: str | Path) -> list[str | Path]:
        program = Path(sys.executable).with_name("mlip-auto")
        return [program, name, "--configfile", self.config, "--directory", self.root, *options]

    def start(self) -> subprocess.Popen:
        driver = subprocess.Popen(
            self.command("run", *self.options),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_signals,
        )
        self.drivers.append(driver)
        return driver

    def end(self) -> None:
        """End what a failed test has left: the drivers, which would start more, and what they started."""
        for driver in self.drivers:
            driver.kill()
            driver.wait()
        end_processes(find_processes(self.root))

    def finish(self) -> tuple[int, str]:
        driver = self.start()
        output, _ = driver.communicate(timeout=2 * self.patience)
        return driver.returncode, output

    def wait_until(self, condition: Callable[[], bool], what: str, every: float = 0.005) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(every)

    def snakemake(self) -> psutil.Process:
        """The Snakemake that the driver started."""
        (process,) = [process for process in find_processes(self.root) if process.cmdline()[1:3] == ["-m", "snakemake"]]
        return process

    def jobs(self, rule: str) -> list[psutil.Process]:
        """The processes of the rule's scripts and what they started, the oldest first."""
        jobs: set[psutil.Process] = set()
        for process in psutil.process_iter():
            if runs_script(process, rule, self.root):
                with suppress(psutil.NoSuchProcess):
                    jobs |= {process, *process.children(recursive=True)}
        return sorted(jobs, key=lambda process: process.create_time())

    def job(self, rule: str) -> psutil.Process | None:
        return next(iter(self.jobs(rule)), None)

    def is_in(self, rule: str, generation: int, since: float) -> bool:
        """The rule's script is past its imports (it opens its log then) and still at work."""
        logs = (self.root / "logs" / f"gen_{generation:03d}").glob(f"{rule}*.log")
        return any(log.stat().st_mtime >= since for log in logs) and self.job(rule) is not None

    def stop_between_labels(self, labels: int) -> None:
        """Stop the labelling jobs when more than `labels` are stored.

        Labels of EMT take some 20 ms: whoever only watched would often kill when the whole shard is done already.
        """
        self.stop_when("label_structures", lambda: len(self.stored()) > labels, "a new label")

    def stop_when(self, rule: str, condition: Callable[[], bool], what: str) -> None:
        """Let the jobs of the rule run in slices of some ms until the condition holds, and leave them stopped."""

        def holds() -> bool:
            jobs = self.jobs(rule)
            signal_all(jobs, signal.SIGCONT)
            time.sleep(0.01)
            signal_all(jobs, signal.SIGSTOP)
            return condition()

        self.wait_until(holds, what)

    def stored(self) -> dict[Path, tuple[bytes, int, int]]:
        """Content, time and inode of each finished label: a label that was computed again would have a new inode."""
        files = (self.root / "store").glob("*/??/*.json")
        return {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in files}

    def records(self) -> dict[str, dict]:
        files = self.paths.results.glob("gen_*/dft/*.json")
        return {identifier: record for file in files for identifier, record in read_json(file)["structures"].items()}

    def selected(self) -> list[list[str]]:
        """Ids of the selected structures by generation."""
        files = sorted(self.paths.results.glob("gen_*/selected.extxyz"))
        return [[atoms.info["structure_id"] for atoms in read_structures(file)] for file in files]

    def outcomes(self) -> list[dict[str, tuple]]:
        """Outcome, last step and atom of each walker by generation."""
        summaries = [read_json(file) for file in sorted(self.paths.results.glob("gen_*/summary.json"))]
        keys = ("outcome", "step", "atom")
        return [
            {name: tuple(walker[key] for key in keys) for name, walker in summary["walkers"].items()}
            for summary in summaries
        ]


def heed_signals() -> None:
    """As from a terminal: whoever started the tests in the background (`&`, nohup) has had these signals ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def runs_script(process: psutil.Process, rule: str, root: Path) -> bool:
    """Whether it works on the rule for the campaign in `root`, there or in a folder below."""
    try:
        is_script = any(word.endswith(f".{rule}.py") for word in process.cmdline())
        return is_script and Path(process.cwd()).is_relative_to(root.resolve())
    except psutil.Error:
        return False


def signal_all(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
