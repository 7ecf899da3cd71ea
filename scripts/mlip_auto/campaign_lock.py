"""One driver a campaign: a lock file names it, and the file's time is the driver's last sign of life.

Whether a driver of this host lives, the kernel says. One on another host (another login node) cannot be asked: it is
taken for gone when it has given no sign of life for long.
"""

import json
import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread

from mlip_auto.processes import CampaignLocked, Owner, end_orphans

HEARTBEAT = 60.0  # s between two signs of life
# s; far above what caches of a network file system hide (a minute) and its hosts' clocks differ by
LONGEST_SILENCE = 600.0


@contextmanager
def hold_lock(path: Path, root: Path) -> Iterator[Owner]:
    """Hold the campaign for this process; `path` is the lock file, JSON that names its owner.

    A lock whose owner is gone is taken over, after the orphans that it left here were ended. A holder that finds
    another one's lock in place of its own (it was suspended, or cut off from the file system) gets SIGTERM.

    Raises
    ------
    CampaignLocked
        Another process holds it; at the end also when another has taken it over meanwhile.
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
    ended = Event()
    heart = Thread(target=_beat, args=(path, owner, ended), daemon=True)
    heart.start()
    try:
        end_orphans(root)  # also when the killed driver's lock was deleted by hand
        yield owner
    finally:
        ended.set()
        heart.join()
        holder = _read_owner(path)
        if holder == owner:
            path.unlink()
        elif holder is not None:  # not when it was deleted by hand
            raise CampaignLocked(
                f"{root.resolve()} was taken over by pid {holder.pid} on {holder.host} ({holder.command}), since "
                f"this driver had given no sign of life for {LONGEST_SILENCE / 60:g} min. That one goes on."
            )


def read_live_owner(path: Path) -> Owner | None:
    """The driver that holds the lock; None when there is none or when it is gone."""
    owner = _read_owner(path)
    return owner if owner and _is_alive(owner, path) else None


def _beat(path: Path, owner: Owner, ended: Event) -> None:
    """Give signs of life, until the end or until the lock is another's."""
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):  # the file system is away: what became of the lock shows when it is back
            holder = _read_owner(path)
            if holder == owner:
                os.utime(path)
            elif holder is not None:
                os.kill(os.getpid(), signal.SIGTERM)
                return


def _is_alive(owner: Owner, lock: Path) -> bool:
    return owner.runs_here() if owner.is_local else _silence(lock) < LONGEST_SILENCE


def _silence(lock: Path) -> float:
    """Seconds since the last sign of life, by the file system's clock: those of two hosts may differ.

    0 where that clock cannot be asked, by a user who may only look on; infinite when the lock was given back meanwhile.
    """
    if not os.access(lock.parent, os.W_OK):
        return 0.0
    with TemporaryFile(dir=lock.parent) as now:
        os.utime(now.fileno())
        try:
            return os.fstat(now.fileno()).st_mtime - lock.stat().st_mtime
        except FileNotFoundError:
            return math.inf


def _read_owner(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def _link(source: Path, target: Path) -> bool:
    """Create `target` with the content of `source` in one step, which unlike O_EXCL never shows an empty file."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def _remove_stale(path: Path, root: Path, owner: Owner) -> None:
    """Remove a lock whose owner is gone; CampaignLocked when it is not."""
    holder = _read_owner(path)
    if holder is None:
        return  # given back meanwhile
    if _is_alive(holder, path):
        cure = f" After {LONGEST_SILENCE / 60:g} min without a sign of life from there the same command takes over."
        raise CampaignLocked(
            f"{root.resolve()} is run by pid {holder.pid} on {holder.host} ({holder.command}); a campaign has one "
            f"driver at a time: wait for it or end it.{'' if holder.is_local else cure}"
        )
    end_orphans(root)
    # Two drivers may find the same stale lock: only the one whose rename succeeds removes it, and a new lock that it
    # caught instead of the stale one is put back.
    aside = path.with_name(f"{path.name}.stale.{owner.host}.{owner.pid}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _read_owner(aside) != holder:
        _link(aside, path)
    aside.unlink()
