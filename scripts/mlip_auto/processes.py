"""No process of a campaign outlives its driver. Linux only: reads /proc, uses PR_SET_PDEATHSIG.

The driver tags what it starts with two environment variables, which every descendant inherits. So a driver that
was killed leaves orphans that the next one finds by their tag, whatever became of their process groups and parents.
"""

import ctypes
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CAMPAIGN_TAG = "MLIP_AUTO_CAMPAIGN"
DRIVER_TAG = "MLIP_AUTO_DRIVER"
PR_SET_PDEATHSIG = 1
TERMINATION_GRACE = 5.0  # s between SIGTERM and SIGKILL
KILL_GRACE = 60.0  # s that the kernel has to end a process

# Loaded here and not between fork and exec, where only async-signal-safe calls are allowed.
_libc = ctypes.CDLL(None, use_errno=True)


class CampaignLocked(RuntimeError):
    """Another live process works on the campaign; the message names it."""


@dataclass(frozen=True)
class Owner:
    """A process that no other can be taken for: pids come again, boot, start time and pid together do not."""

    host: str
    pid: int
    started: int  # clock ticks since boot: unlike a time of day, these do not move when the clock is set
    command: str
    boot: str = ""  # the kernel's own id of it; empty in locks of versions that did not note it

    @classmethod
    def this_process(cls) -> "Owner":
        pid = os.getpid()
        command = " ".join(psutil.Process().cmdline())
        return cls(socket.gethostname(), pid, start_ticks(pid), command, read_boot_id())

    @property
    def tag(self) -> str:
        return f"{self.pid}:{self.started}"

    @property
    def is_local(self) -> bool:
        return self.host == socket.gethostname()

    def runs_here(self) -> bool:
        """Whether it is alive, on this host."""
        return self.is_local and self.boot in ("", read_boot_id()) and start_ticks(self.pid) == self.started


def read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot; -1 when it does not run (a zombie does not run)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel SIGKILL this process when its parent ends, however that ends.

    A job's script calls it at its start (Snakemake's `bash -c` replaces itself by the script, so Snakemake is the
    parent), and it serves as `preexec_fn` of what a job starts: `partial(die_with_parent, os.getpid())`.

    Parameters
    ----------
    parent
        The pid that the parent must have; its pid now where not given. A parent that is gone already ends this
        process at once.
    """
    expected = os.getppid() if parent is None else parent
    if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def tagged_environment(root: Path, owner: Owner) -> dict[str, str]:
    """This process's environment with the tags of campaign and driver."""
    return os.environ | {CAMPAIGN_TAG: str(root.resolve()), DRIVER_TAG: owner.tag}


def find_processes(root: Path) -> list[psutil.Process]:
    """Live processes that a driver of this campaign started, their descendants included.

    Processes of other users cannot be read and are not found. Those of its Slurm jobs, which carry the tags too, are
    Slurm's: a job that is killed behind Slurm's back counts as failed.
    """
    return [process for process, _ in _tagged(root)]


def find_orphans(root: Path) -> list[psutil.Process]:
    """Those of `find_processes` whose driver is gone."""
    return [process for process, driver in _tagged(root) if not _runs(driver)]


def _tagged(root: Path) -> Iterator[tuple[psutil.Process, str]]:
    campaign = str(root.resolve())
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue  # ended meanwhile, a zombie, or another user's
        if process.pid == os.getpid() or _belongs_to_slurm(environment):
            continue
        if environment.get(CAMPAIGN_TAG) == campaign and DRIVER_TAG in environment:
            yield process, environment[DRIVER_TAG]


def _belongs_to_slurm(environment: Mapping[str, str]) -> bool:
    """Whether a process runs in a Slurm job other than this process's own."""
    return environment.get("SLURM_JOB_ID") != os.environ.get("SLURM_JOB_ID")


def _runs(tag: str) -> bool:
    pid, started = tag.split(":")
    return start_ticks(int(pid)) == int(started)


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """SIGTERM, then SIGKILL for those that have not ended after some seconds; returns when all are gone.

    psutil checks that a pid still is the process it was before it signals it.

    Raises
    ------
    CampaignLocked
        A process outlives SIGKILL (it hangs in the kernel, e.g. on a dead file system).
    """
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    alive = _wait_for_end(processes, TERMINATION_GRACE)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if stuck := _wait_for_end(alive, KILL_GRACE):
        pids = ", ".join(str(process.pid) for process in stuck)
        raise CampaignLocked(f"pid {pids} of this campaign does not end, even by SIGKILL: free it, then start again.")


def _wait_for_end(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all have ended, at most that long; returns the rest. A zombie has ended, whoever should reap it."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if _is_alive(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return alive


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_orphans(root: Path) -> list[str]:
    """End what a killed driver of this campaign left behind; returns the command of each process ended."""
    ended = []
    while orphans := find_orphans(root):  # again, for what they started meanwhile
        for orphan in orphans:
            with suppress(psutil.NoSuchProcess):
                ended.append(f"pid {orphan.pid}: {' '.join(orphan.cmdline())}")
        end_processes(orphans)
    return ended


def find_snakemake(root: Path) -> psutil.Process | None:
    """A live Snakemake that works in the campaign's folder: a user's own, once orphans have been ended.

    One within a Slurm job is not: its Snakemake is elsewhere.
    """
    for process in psutil.process_iter():
        try:
            words = [Path(word).name for word in process.cmdline()[:3]]
            is_snakemake = "python" in "".join(words[:1]) and "snakemake" in words
            if is_snakemake and process.cwd() == str(root.resolve()) and not _belongs_to_slurm(process.environ()):
                return process
        except psutil.Error:
            continue  # ended meanwhile, or another user's
    return None
