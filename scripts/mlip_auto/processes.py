"""One driver a campaign, and no process that outlives it. Linux only: reads /proc, uses PR_SET_PDEATHSIG.

The driver tags what it starts with two environment variables, which every descendant inherits. So a driver that
was killed leaves orphans that the next one finds by their tag, whatever became of their process groups and parents.
"""

import ctypes
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
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

    def is_alive(self) -> bool:
        """True also when it belongs to another host, which cannot be asked."""
        if self.host != socket.gethostname():
            return True
        return self.boot in ("", read_boot_id()) and start_ticks(self.pid) == self.started


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


@contextmanager
def hold_lock(path: Path, root: Path) -> Iterator[Owner]:
    """Hold the campaign for this process; `path` is the lock file, JSON that names its owner.

    A lock whose owner is gone is taken over, after the orphans that it left were ended.

    Raises
    ------
    CampaignLocked
        Another process holds it. One on another host counts as alive, since it cannot be asked.
    """
    owner = Owner.this_process()
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{owner.host}.{owner.pid}")
    own.write_text(json.dumps(asdict(owner), indent=2) + "\n")
    try:
        while not _link(own, path):
            _remove_stale(path, root, owner)
    finally:
        own.unlink()
    try:
        end_orphans(root)  # also when the killed driver's lock was deleted by hand
        yield owner
    finally:
        with suppress(FileNotFoundError):  # deleted by hand, and maybe taken by another host since
            if json.loads(path.read_text()) == asdict(owner):
                path.unlink()


def read_live_owner(path: Path) -> Owner | None:
    """The driver that holds the lock; None when there is none or when it is gone (one on another host counts)."""
    try:
        owner = Owner(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    return owner if owner.is_alive() else None


def _link(source: Path, target: Path) -> bool:
    """Create `target` with the content of `source` in one step, which unlike O_EXCL never shows an empty file."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def _remove_stale(path: Path, root: Path, owner: Owner) -> None:
    """Remove a lock whose owner is gone; CampaignLocked when it is not."""
    try:
        holder = Owner(**json.loads(path.read_text()))
    except FileNotFoundError:
        return  # given back meanwhile
    if holder.is_alive():
        cure = "" if holder.host == owner.host else f" If it is gone, delete {path}."
        raise CampaignLocked(
            f"{root.resolve()} is run by pid {holder.pid} on {holder.host} ({holder.command}); a campaign has one "
            f"driver at a time: wait for it or end it.{cure}"
        )
    end_orphans(root)
    # Two drivers may find the same stale lock: only the one whose rename succeeds removes it, and a new lock that it
    # caught instead of the stale one is put back.
    aside = path.with_name(f"{path.name}.stale.{owner.host}.{owner.pid}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if json.loads(aside.read_text()) != asdict(holder):
        _link(aside, path)
    aside.unlink()
