"""One Snakemake of the driver: started, followed line by line, watched, and ended with all that it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Thread
from typing import IO, NoReturn

import psutil
import yaml
from rich.console import Console

import mlip_auto
from mlip_auto.paths import CampaignPaths
from mlip_auto.processes import Owner, die_with_parent, end_processes, find_processes, tagged_environment
from mlip_auto.progress import TAIL, Progress
from mlip_auto.slurm import SlurmUnreachable, cancel_jobs, list_jobs

REPO = Path(mlip_auto.__file__).parents[2]
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_GRACE = 30.0  # s that Snakemake has to cancel its jobs when it is asked to stop
WATCH_INTERVAL = 2.0  # s between two looks at whether it has ended
# A Snakemake on Slurm that says nothing for so long (s) while none of its jobs runs or pends has lost sight of them for
# ever: it looks at them at least every 180 s, waits `latency-wait` (60 s) for their files, and is looked at every 60 s.
HANG_PATIENCE = float(os.environ.get("MLIP_AUTO_HANG_SECONDS", 360))
NOBODY_READS = (OSError, SystemExit)  # what comes of writing to a closed terminal or, by rich, to a closed pipe
SLURM_CLIENTS = ("squeue", "sacct", "scontrol", "sinfo", "which")


class CampaignError(RuntimeError):
    """The campaign cannot go on; the message says why and how to cure it."""


class LostSlurm(RuntimeError):
    """Snakemake lost sight of its Slurm jobs (and was ended), or could not send them: it is to be started again."""


class Interrupted(BaseException):
    """A signal asked the driver to stop. Not an Exception, like KeyboardInterrupt: nothing on the way may keep it.

    `left` says what became of the jobs.
    """

    def __init__(self, number: int):
        self.signal = signal.Signals(number)
        self.left = "nothing was started"

    def __str__(self) -> str:
        return f"Stopped by {self.signal.name}; {self.left}. The same command goes on from here."


@dataclass(frozen=True)
class SnakemakeCall:
    """How Snakemake is started; the names are those of its flags."""

    configfile: Path
    directory: Path
    profile: str | None = None
    cores: int | None = None

    def command(self, *arguments: str) -> list[str]:
        """Its command line with further `arguments`; profiles/local where no profile is named."""
        snakefile = REPO / "Snakefile"
        if not snakefile.exists():
            raise CampaignError(
                f"{snakefile}: no such file; mlip-auto runs from a clone of its repository: install it there with "
                "`make setup` or `pip install -e .`"
            )
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
        command += ["--directory", str(self.directory.resolve()), "--configfile", str(self.configfile.resolve())]
        command += ["--profile", self.profile or str(REPO / "profiles" / "local")]
        if self.cores is not None:
            command += ["--cores", str(self.cores)]
        return [*command, *arguments]

    def read_profile(self) -> dict[str, object]:
        """The content of the profile, found as Snakemake finds it; empty where there is none."""
        from snakemake.cli import get_profile_dir  # takes a second to import

        found = get_profile_dir(self.profile or str(REPO / "profiles" / "local"))
        return (yaml.safe_load(found[1].read_text()) or {}) if found else {}

    @cached_property
    def uses_slurm(self) -> bool:
        """Whether the jobs go to Slurm."""
        return self.profile is not None and self.read_profile().get("executor") == "slurm"


@dataclass
class SnakemakeRun:
    """A Snakemake that works on one generation; `progress` knows what it has said."""

    command: list[str]
    paths: CampaignPaths
    generation: int
    owner: Owner
    console: Console
    slurm: bool
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.generation, self.console, self.paths)

    @property
    def log(self) -> Path:
        return self.paths.snakemake_log(self.generation)

    def run(self) -> None:
        """Start it, follow it, and leave no process behind, however it ends.

        Raises
        ------
        CampaignError
            It failed.
        LostSlurm
            It hung, or it failed since slurmctld was away.
        Interrupted
            On Slurm the jobs go on, unless the signal is SIGINT.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = tagged_environment(self.paths.root, self.owner)
        environment.setdefault("OMP_NUM_THREADS", "1")  # Snakemake's own; a job gets its rule's threads
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            # Its own session: a signal of the terminal reaches the driver alone, which passes it on once.
            snakemake = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
            assert snakemake.stdout is not None
            with self.log.open("a") as file:
                file.write(f"\n{time.ctime()}: {' '.join(self.command)}\n")
                follower = Thread(target=_follow, args=(snakemake.stdout, file, self.progress))
                follower.start()
                try:
                    self._wait(snakemake)
                finally:
                    end_processes(find_processes(self.paths.root))
                    follower.join()
        finally:
            with suppress(*NOBODY_READS):
                self.progress.close()
            end_processes(find_processes(self.paths.root))
        if snakemake.returncode != 0:
            if self.progress.lost_slurm:
                raise LostSlurm("Snakemake could not send its jobs, since slurmctld did not answer")
            raise CampaignError(self._describe_failure(snakemake.returncode))

    def _wait(self, snakemake: subprocess.Popen[str]) -> None:
        """Wait for its end; when the driver is asked to stop, end it."""
        try:
            if self.slurm:
                self._watch(snakemake)
            else:
                snakemake.wait()
        except Interrupted as interruption:
            if self.slurm and interruption.signal != signal.SIGINT:
                # Asked to end, Snakemake would cancel the jobs or wait for them. Its lock stays while they run.
                snakemake.kill()
            elif snakemake.poll() is None:
                os.killpg(snakemake.pid, signal.SIGINT)
            try:
                snakemake.wait(timeout=STOP_GRACE)
            except subprocess.TimeoutExpired:
                snakemake.kill()
            raise

    def _watch(self, snakemake: subprocess.Popen[str]) -> None:
        """Wait for its end, and end it itself when it hangs."""
        busy = looked = time.monotonic()
        while True:
            try:
                snakemake.wait(timeout=WATCH_INTERVAL)
                return
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            busy = max(busy, self.progress.heard)
            if now - max(busy, looked) < HANG_PATIENCE / 6:
                continue
            looked = now
            if self._is_at_work(snakemake):
                busy = now
            elif now - busy > HANG_PATIENCE:
                snakemake.kill()
                raise LostSlurm(
                    f"Snakemake had nothing to say for {now - busy:.0f} s while none of its jobs was in Slurm's queue"
                )

    def _is_at_work(self, snakemake: subprocess.Popen[str]) -> bool:
        """Whether a job is in the queue or a local rule runs; True where Slurm does not answer.

        Jobs that no time will start are cancelled: Snakemake sends them again.
        """
        try:
            children = psutil.Process(snakemake.pid).children(recursive=True)
            if any(child.name() not in SLURM_CLIENTS for child in children):
                return True
            jobs = list_jobs(self.paths.root)
            stuck = [job for job in jobs if job.is_stuck]
            cancel_jobs(stuck)
            return len(jobs) > len(stuck)
        except (psutil.NoSuchProcess, SlurmUnreachable):
            return True

    def _describe_failure(self, code: int) -> str:
        if code < 0:
            found = f"Snakemake was ended by {signal.Signals(-code).name}"
        elif self.progress.failures:
            found = "\n".join(failure.describe(self.paths.root) for failure in self.progress.failures)
        else:
            lines = self.log.read_text().splitlines()[-TAIL:]
            found = "Snakemake failed:\n" + "".join(f"    {line}\n" for line in lines)
        return (
            f"{found}\nFailed in generation {self.generation}; Snakemake's whole output is in {self.log}. "
            "When the cause is cured, the same command goes on from here."
        )


def _follow(lines: IO[str], file: IO[str], progress: Progress) -> None:
    for line in lines:
        file.write(line)
        file.flush()
        try:
            progress.feed(line)
        except NOBODY_READS:
            # Stop, as SIGPIPE would, and go on reading, or Snakemake could not end.
            os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Turn the signals that ask for an end into `Interrupted`; one that is ignored (nohup) stays ignored.

    After the first all are: what ends the children takes a minute at most, and must not be broken off.
    """

    def interrupt(number: int, frame: object) -> NoReturn:
        for later in caught:
            signal.signal(later, signal.SIG_IGN)
        raise Interrupted(number)

    caught = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
