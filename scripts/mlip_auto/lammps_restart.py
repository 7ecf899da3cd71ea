"""Restart files of LAMMPS: which one a run that ended early goes on from, and which one is safe for the next fit."""

import math
import struct
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from mlip_auto.lammps_input import RESTARTS

RESUMED = "restart.resumed"
"""The file that the present attempt goes on from: LAMMPS will write over those in RESTARTS."""
_MAGIC = b"LammpS RestartT\0"
_VERSION, _UNITS, _NTIMESTEP = 0, 4, 5  # flags of the header


class Restart(NamedTuple):
    """A whole restart file and the step of its state."""

    file: Path
    step: int


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
