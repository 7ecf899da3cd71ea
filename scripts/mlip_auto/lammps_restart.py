"""Attempts at one run: LAMMPS's restart files carry it on when it is killed, or out of time."""

import math
import shutil
import struct
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from ase import Atoms

from mlip_auto.lammps_input import RESTARTS, InferenceConfig, write_input
from mlip_auto.lammps_output import truncate_dump
from mlip_auto.paths import WalkerPaths
from mlip_auto.structures import read_json, write_atomically, write_json

RESUMED = "restart.resumed"
"""The file that the present attempt goes on from: LAMMPS will write over those in RESTARTS."""
_ATTEMPTS = "attempts.json"
_EARLIER_LOG = "log.earlier"
_MAGIC = b"LammpS RestartT\0"
_VERSION, _UNITS, _NTIMESTEP = 0, 4, 5  # flags of the header


class Restart(NamedTuple):
    """A whole restart file and the step of its state."""

    file: Path
    step: int


class Attempt(NamedTuple):
    """The `number`-th start of LAMMPS for a run (from 1), the step it starts at, and its arguments after `-in`."""

    number: int
    step: int
    arguments: list[str]


def begin_attempt(
    run: WalkerPaths,
    atoms: Atoms,
    potential: Path,
    active_set: Path,
    inference: InferenceConfig,
    resume_from: Path | None = None,
) -> Attempt:
    """Prepare the folder of a run: as it was left where it can go on, else anew.

    It can if the script, which names the content of the potential, and the start are the same, and a restart file is
    whole. The frames are cut back to that file's step, so that what LAMMPS appends makes them those of one run.
    """
    fresh = WalkerPaths(run.directory.with_name(f"{run.directory.name}.new"))
    _remove(fresh.directory)
    write_input(fresh, atoms, potential, active_set, inference)
    if resume_from is not None:
        shutil.copy(resume_from, fresh.directory / RESUMED)
    if _is_same_run(fresh, run) and list_restarts(run.directory):
        _remove(fresh.directory)
    else:
        _remove(run.directory)
        fresh.directory.rename(run.directory)
    seconds = _put_aside_log(run)
    write_json(run.directory / _ATTEMPTS, {"seconds": seconds, "started": time.time()})
    number, arguments = len(seconds) + 1, ["-log", run.log.name]
    restarts = list_restarts(run.directory)
    if not restarts:
        return Attempt(number, 0, arguments)
    restarts[0].file.replace(run.directory / RESUMED)
    if run.dump.exists():
        truncate_dump(run.dump, restarts[0].step)
    for frame in run.directory.glob(run.latest.name):
        frame.unlink()
    return Attempt(number, restarts[0].step, [*arguments, "-var", "resume", RESUMED])


def join_attempts(run: WalkerPaths) -> float:
    """Put the logs of earlier attempts in front of this one's, as `read_thermo` reads them; wall time of all in s."""
    attempts = read_json(run.directory / _ATTEMPTS)
    earlier = run.directory / _EARLIER_LOG
    if earlier.exists():
        with write_atomically(run.log) as aside:
            aside.write_bytes(earlier.read_bytes() + (run.log.read_bytes() if run.log.exists() else b""))
        earlier.unlink()
    run.log.touch()  # a program that did not start has none
    return float(sum(attempts["seconds"]) + time.time() - attempts["started"])


def _put_aside_log(run: WalkerPaths) -> list[float]:
    """Make place for the log of a new attempt; wall time in s of those before, by when they last wrote."""
    file = run.directory / _ATTEMPTS
    if not file.exists():
        return []
    attempts = read_json(file)
    ended = run.log.stat().st_mtime if run.log.exists() else attempts["started"]
    if run.log.exists():
        with (run.directory / _EARLIER_LOG).open("ab") as earlier:
            earlier.write(run.log.read_bytes())
        run.log.unlink()
    return [*attempts["seconds"], max(ended - attempts["started"], 0.0)]


def _is_same_run(fresh: WalkerPaths, run: WalkerPaths) -> bool:
    pairs = ((fresh.input, run.input), (fresh.start, run.start))
    return all(old.exists() and new.read_bytes() == old.read_bytes() for new, old in pairs)


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def read_restart_step(file: Path) -> int | None:
    """The step of a restart file; None when it is torn: LAMMPS ends a whole one with its magic string.

    The header is, after the magic string and two numbers, a list of (flag, value): src/write_restart.cpp of LAMMPS.
    """
    content = file.read_bytes()
    if not (content.startswith(_MAGIC) and content.endswith(_MAGIC) and len(content) > 2 * len(_MAGIC)):
        return None
    at = len(_MAGIC) + 8
    while True:
        (flag,) = struct.unpack_from("<i", content, at)
        if flag == _NTIMESTEP:
            return int(struct.unpack_from("<q", content, at + 4)[0])
        if flag in (_VERSION, _UNITS):
            at += struct.unpack_from("<i", content, at + 4)[0]  # characters
        at += 8


def list_restarts(directory: Path) -> list[Restart]:
    """Whole restart files of a run, the latest first."""
    files = [directory / name for name in (*RESTARTS, RESUMED)]
    found = [Restart(file, step) for file in files if file.exists() and (step := read_restart_step(file)) is not None]
    return sorted(found, key=lambda restart: -restart.step)


def find_safe_restart(directory: Path, thermo: pd.DataFrame, gamma_select: float) -> Restart | None:
    """The latest restart file at whose step the largest gamma was at most `gamma_select`; None when there is none."""
    for restart in list_restarts(directory):
        gamma = thermo["v_gamma_max"].get(restart.step, math.nan)
        if gamma <= gamma_select:
            return restart
    return None
