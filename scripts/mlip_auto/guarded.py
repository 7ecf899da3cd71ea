"""A function in a process of its own, within limits of time and memory. Linux only (sessions, /proc)."""

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

from mlip_auto.processes import die_with_parent

CHECK_EVERY = 0.5  # s between two looks at time and memory
GB = 1e9


class OutOfTime(RuntimeError):
    """The call was not over in its time."""


class OutOfMemory(RuntimeError):
    """The processes of the call held more memory than allowed."""


class Died(RuntimeError):
    """The process of the call ended without an answer."""


def call_in_child(
    function: Callable[..., Any], *arguments: Any, seconds: float | None = None, memory_gb: float | None = None
) -> Any:
    """The result of `function(*arguments)`, called in a forked process that is the leader of its own session.

    When this returns or raises, whatever the call started has ended: all processes of the session are killed. Should
    this process itself be killed, the kernel ends the child with it.

    Parameters
    ----------
    seconds, memory_gb
        Limits of the call and all that it starts; memory is what would be free without them (USS), in 1e9 bytes.

    Raises
    ------
    OutOfTime, OutOfMemory, Died
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, os.getpid(), function, arguments))
    child.start()
    sender.close()
    assert child.pid is not None
    end = None if seconds is None else time.monotonic() + seconds
    try:
        while not receiver.poll(CHECK_EVERY if end is None else max(0.0, min(CHECK_EVERY, end - time.monotonic()))):
            if end is not None and time.monotonic() >= end:
                raise OutOfTime(f"not over after {seconds:.3g} s")
            if memory_gb is not None and (used := _sum_memory(child.pid) / GB) > memory_gb:
                raise OutOfMemory(f"{used:.2f} GB in use, above {memory_gb:g}")
        return receiver.recv()
    except EOFError:
        child.join()
        raise Died(f"ended without an answer (exit code {child.exitcode})") from None
    finally:
        _end_session(child.pid)
        child.kill()  # one that was not yet the leader of its session
        child.join()
        receiver.close()


def _answer(sender: Connection, parent: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    die_with_parent(parent)
    os.setsid()
    sender.send(function(*arguments))


def _session(leader: int) -> list[psutil.Process]:
    """Processes of a session, and descendants of its leader that made a session of their own."""
    found = {}
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == leader:
                for member in (process, *process.children(recursive=True)):
                    found[member.pid] = member
    return list(found.values())


def _sum_memory(leader: int) -> int:
    total = 0
    for process in _session(leader):
        with suppress(psutil.Error):
            total += process.memory_full_info().uss
    return total


def _end_session(leader: int) -> None:
    while processes := [p for p in _session(leader) if p.pid != os.getpid() and _runs(p)]:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
