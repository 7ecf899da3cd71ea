"""Structures on disk: atomic writes, content ids, provenance that travels in extxyz.

Keys in `atoms.info`: `structure_id`, `config_type` (`initial`, `active_learning`), `generation`, `origin`,
`family` (number in `initial.structures`), `energy_weight`, `gamma`, `reason`; labels add `settings_hash`. Keys in
`atoms.arrays`: `force_mask`, `gamma`, `parent_index`.
Cuts add to info `walker`, `step`, `parent_center` (the centre in the frame), `center_atom_index` (in the cut),
`cut_mode`, `mode_reason`, `composition_change`, `audit`, `audit_*`; to arrays `cut_gamma`, `force_change`.
Energies (eV) and forces (eV/Å) of a label sit in a SinglePointCalculator, as ASE reads and writes them.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The name is kept, so that writers that choose a format by suffix work. A reader sees the old file or the
    whole new one, on a shared file system too. What a killed writer leaves lies in a hidden folder of its own, where
    no pattern such as `*.json` finds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        aside.touch()
        yield aside
        aside.chmod(0o644)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically. NaN and infinity are refused (ValueError): not JSON."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with write_atomically(path) as aside:
        aside.write_text(text)


def read_json(path: Path) -> Any:
    return json.loads(Path(path).read_text())


def write_structures(path: Path, structures: Sequence[Atoms]) -> None:
    """Write extxyz atomically; an empty list gives an empty file, which `read_structures` reads as no structures."""
    with write_atomically(path) as aside:
        if structures:
            from ase.io import write  # not at the top: all of scipy comes along, which `mlip-auto status` can spare

            write(aside, structures, format="extxyz")


def read_structures(path: Path) -> list[Atoms]:
    path = Path(path)
    if path.stat().st_size == 0:
        return []
    from ase.io import iread

    return list(iread(path, format="extxyz"))


def structure_id(atoms: Atoms) -> str:
    """Content id: sha256 over numbers, pbc, cell and positions (wrapped, rounded to 1e-6 Å, in file order).

    extxyz keeps 8 decimals, so the positions are first rounded to what a file would give back.
    """
    copy = Atoms(atoms.numbers, positions=np.round(atoms.positions, 8), cell=np.round(atoms.cell[:], 8), pbc=atoms.pbc)
    copy.wrap()
    digest = hashlib.sha256()
    digest.update(np.asarray(copy.numbers, dtype="<i8").tobytes())
    digest.update(np.asarray(copy.pbc, dtype="u1").tobytes())
    for lengths in (copy.cell[:], copy.positions):
        digest.update(np.asarray(np.round(lengths * 1e6), dtype="<i8").tobytes())
    return digest.hexdigest()


def is_held_out(identifier: str, fraction: float) -> bool:
    """True for the first `fraction` of hash space: the same structures in every generation and every campaign."""
    return int(identifier[:16], 16) < fraction * 16**16


def is_isolated_atom(atoms: Atoms) -> bool:
    """An atom without neighbours: it tells the energy of its element, and nothing that a basis function could fit."""
    return len(atoms) == 1 and not atoms.pbc.any()


def get_force_mask(atoms: Atoms) -> np.ndarray:
    """dtype=bool, shape=(n_atoms,): atoms whose forces count; all of them when the structure has no mask."""
    if "force_mask" not in atoms.arrays:
        return np.ones(len(atoms), dtype=bool)
    return atoms.arrays["force_mask"].astype(bool)


def get_energy_weight(atoms: Atoms) -> float:
    """0 for cuts whose energy holds a surface or a healed boundary, 1 otherwise."""
    return float(atoms.info.get("energy_weight", 1.0))
