"""What LAMMPS wrote: thermo table and halt from the log, frames with gamma from the end of the dump."""

import io
import mmap
import os
import re
from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import atomic_numbers

from mlip_auto.lammps_input import LATEST_FRAMES
from mlip_auto.paths import WalkerPaths

# The first is LAMMPS's own message, the second that of in.lammps for a start above the threshold.
_HALT = re.compile(
    r"^(?:Fix halt condition for fix-id \S+|Halt condition) met on step (\d+) with value (\S+)", re.MULTILINE
)
_FRAME = b"ITEM: TIMESTEP"


class Halt(NamedTuple):
    """Where and at which gamma a run halted by itself."""

    step: int
    gamma: float


def read_thermo(log: Path) -> pd.DataFrame:
    """Thermo output of a log: one row a step (index `Step`), columns named as in the log.

    A step printed by two `run`s appears once. In the logs of a run and of its resumption, one after the other, the rows
    of the resumption take the place of those from its first step on. Lines that LAMMPS writes in between (warnings,
    the halt) and the torn last line of a killed run are left out; without any thermo output the table is empty.
    """
    columns: list[str] = []
    rows: dict[float, list[float]] = {}
    text = Path(log).read_text()
    for line in text[: text.rfind("\n") + 1].splitlines():
        words = line.split()
        if words[:1] == ["Step"]:
            columns = words
        elif line.startswith("Loop time of"):
            columns = []
        elif len(words) == len(columns) > 0:
            try:
                values = [float(word) for word in words]
            except ValueError:
                continue
            while rows and values[0] <= next(reversed(rows)):
                rows.popitem()
            rows[values[0]] = values
            header = columns
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(list(rows.values()), columns=header)
    return table.astype({"Step": int}).set_index("Step")


def read_halt(log: Path) -> Halt | None:
    """The step and gamma at which the (last) run of this log halted; None when it did not.

    A halt with `error hard` is an error, not a halt: LAMMPS writes ERROR before it.
    """
    found = _HALT.findall(Path(log).read_text())
    return Halt(int(found[-1][0]), float(found[-1][1])) if found else None


def read_version(log: Path) -> str:
    """The version that LAMMPS names in the first line of its log; `unknown` where there is none."""
    found = re.search(r"^LAMMPS \((.+)\)$", Path(log).read_text(), re.MULTILINE) if log.exists() else None
    return found[1] if found else "unknown"


def read_error(log: Path) -> str | None:
    """LAMMPS's last ERROR line, without its place in the source; None when there is none.

    Of a `fix halt ... error hard` the id says what was wrong: `temperature_above_4000_K`.
    """
    errors = re.findall(r"^ERROR(?: on proc \d+)?: (.*?)(?: \(\S+\.cpp:\d+\))?$", Path(log).read_text(), re.MULTILINE)
    if not errors:
        return None
    halt = re.match(r"Fix halt condition for fix-id (\S+) met on step (\d+)", errors[-1])
    return f"{halt[1].replace('_', ' ')} at step {halt[2]}" if halt else errors[-1]


def read_last_frames(dump: Path, count: int = 1) -> list[Atoms]:
    """The last `count` sound frames of a dump, oldest first; fewer when it has fewer.

    Read backwards from the end of the file, so a long dump costs no more than a short one. A frame torn by a kill is
    left out, and so is one of a run that blew up, where a position or a gamma is not finite. Atoms are in the order of
    their ids (index = id - 1), with the array `gamma` where the dump has a column `f_gamma`, info `step`, and the cell
    in LAMMPS's orientation with its origin at zero.
    """
    return list(islice(_read_backwards(dump), count))[::-1]


def read_candidate_frames(run: WalkerPaths, gamma_select: float, count: int) -> list[Atoms]:
    """Frames of a run to take candidates from, oldest first and its last one last; read as by `read_last_frames`.

    Beside the frames that led to its end they have an atom above `gamma_select`: as many as make `count`, evenly spread
    over the run. Which these are the log tells, so that no other frame is parsed.
    """
    steps = [step for _, _, step in _locate_backwards(run.dump) if step is not None][::-1]
    thermo = read_thermo(run.log)
    above = set() if thermo.empty else set(thermo.index[thermo["v_gamma_max"] > gamma_select])
    earlier = [step for step in steps[:-LATEST_FRAMES] if step in above]
    spread = np.linspace(0, len(earlier) - 1, min(count - LATEST_FRAMES, len(earlier))).round().astype(int)
    wanted = {earlier[index] for index in spread} | set(steps[-LATEST_FRAMES:])
    return list(_read_backwards(run.dump, wanted))[::-1]


def truncate_dump(dump: Path, step: int) -> None:
    """Remove from the end of a dump the frames of `step` and later, a torn one included."""
    end = dump.stat().st_size
    for _, start, found in _locate_backwards(dump):
        if found is not None and found < step:
            break
        end = start
    os.truncate(dump, end)


def append_latest_frames(run: WalkerPaths) -> None:
    """Move the frames of the files `latest` to the end of the dump, in place of those that it has of the same steps."""
    steps = sorted(int(file.name.split(".")[1]) for file in run.directory.glob(run.latest.name))
    if not steps:
        return
    if run.dump.exists():
        truncate_dump(run.dump, steps[0])
    with run.dump.open("ab") as dump:
        for step in steps:
            file = Path(str(run.latest).replace("*", str(step)))
            dump.write(file.read_bytes())
            file.unlink()


def _locate_backwards(dump: Path) -> Iterator[tuple[mmap.mmap, int, int | None]]:
    """The dump, place (byte) and step of each of its frames, the last one first; no step where its line is torn."""
    if dump.stat().st_size == 0:
        return
    with dump.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = len(content)
        while (start := content.rfind(_FRAME, 0, start)) >= 0:
            words = content[start : start + len(_FRAME) + 24].split(b"\n", 2)
            yield content, start, int(words[1]) if len(words) == 3 and words[1].isdigit() else None


def _read_backwards(dump: Path, steps: Container[int] | None = None) -> Iterator[Atoms]:
    """Whole frames of a dump, of these steps only where given, the last one first."""
    end = dump.stat().st_size
    for content, start, step in _locate_backwards(dump):
        if step is not None and (steps is None or step in steps):
            frame = _parse_frame(content, start, end)
            if frame is not None:
                yield frame
        end = start


def _parse_frame(content: mmap.mmap, start: int, end: int) -> Atoms | None:
    """The frame of `dump custom` between two places of the file; None when it is torn or not finite.

    Its text is copied once and its table is sorted by column: a million atoms are 80 MB of text.
    """
    content.seek(start)
    header = [content.readline() for _ in range(9)]
    body = content[content.tell() : end]
    if not header[8].endswith(b"\n") or body.count(b"\n") < int(header[3]):
        return None
    boundaries = header[4].decode().split()[-3:]
    bounds = np.array([line.split() for line in header[5:8]], dtype=float)
    columns = header[8].decode().split()[2:]
    wanted = [name for name in columns if name in ("id", "element", "x", "y", "z", "f_gamma")]
    table = pd.read_csv(
        io.BytesIO(body),
        sep=r"\s+",
        header=None,
        names=columns,
        usecols=wanted,
        dtype={"element": "category"},
        nrows=int(header[3]),
    )
    del body
    order = np.argsort(table["id"].to_numpy(), kind="stable")
    elements = table["element"].cat
    numbers = np.array([atomic_numbers[element] for element in elements.categories])[elements.codes.to_numpy()]
    cell, origin = _cell_of_bounds(bounds)
    atoms = Atoms(
        numbers[order],
        positions=np.column_stack([table[axis].to_numpy(dtype=float)[order] for axis in "xyz"]) - origin,
        cell=cell,
        pbc=[boundary == "pp" for boundary in boundaries],
        info={"step": int(header[1])},
    )
    if "f_gamma" in columns:
        atoms.arrays["gamma"] = table["f_gamma"].to_numpy(dtype=float)[order]
    finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.arrays.get("gamma", 0.0)).all()
    return atoms if finite else None


def _cell_of_bounds(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cell vectors (rows, Å) and origin from a dump's BOX BOUNDS, shape=(3, 2) or with a tilt (3, 3).

    The bounds of a tilted box enclose it: https://docs.lammps.org/Howto_triclinic.html
    """
    low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
    xy, xz, yz = bounds[:, 2] if bounds.shape[1] == 3 else (0.0, 0.0, 0.0)
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    lengths = high - low
    return np.array([[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]]), low
