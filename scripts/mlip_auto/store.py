"""Content-addressed labels: one file a label, safe with many writers, verified on read.

A label is found by what was computed (`structure_id`) and how (`settings_hash`), in any campaign that shares the
folder. Each entry holds its structure too, so that a store is a data set by itself.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlip_auto.structures import structure_id, write_json


class DamagedEntry(ValueError):
    """A file of the store that is no whole, unaltered label; the message says why."""


@dataclass(frozen=True)
class Label:
    """Energy (eV), forces (eV/Å, n_atoms x 3) and stress (eV/Å³, Voigt) of one structure, and what they cost.

    `structure` is what `describe_structure` gives; `scf_steps` and `rungs` ({rung, outcome, seconds, scf_steps} of each
    try on the recovery ladder) are what the code took; `flag` says why a label is not of the physics asked for (None:
    it is).
    """

    structure_id: str
    settings_hash: str
    energy: float
    forces: list[list[float]]
    seconds: float
    cores: int
    code_version: str
    settings: dict[str, Any]
    structure: dict[str, Any]
    stress: list[float] | None = None
    scf_steps: int | None = None
    rungs: list[dict[str, Any]] = field(default_factory=list)
    flag: str | None = None

    @property
    def atoms(self) -> Atoms:
        """The structure with its label, and in `info` where that comes from."""
        atoms = Atoms(**self.structure)
        stress = None if self.stress is None else np.array(self.stress)
        atoms.calc = SinglePointCalculator(atoms, energy=self.energy, forces=np.array(self.forces), stress=stress)
        for key in ("structure_id", "settings_hash", "code_version", "seconds", "cores"):
            atoms.info[key] = getattr(self, key)
        atoms.info["code"] = self.settings["code"]
        optional = {
            "scf_steps": self.scf_steps,
            "rungs": " ".join(rung["rung"] for rung in self.rungs[1:]),
            "flag": self.flag,
        }
        atoms.info.update({key: value for key, value in optional.items() if value})
        return atoms


def describe_structure(atoms: Atoms) -> dict[str, Any]:
    """Numbers, positions (Å), cell (Å) and pbc, without loss in JSON: `Atoms(**description)` gives them back."""
    return {key: getattr(atoms, key).tolist() for key in ("numbers", "positions")} | {
        "cell": atoms.cell[:].tolist(),
        "pbc": atoms.pbc.tolist(),
    }


class LabelStore:
    """Finished labels in `folder`/{settings hash}/{first two digits}/{structure id}.json."""

    def __init__(self, folder: Path, settings_hash: str):
        self.folder = Path(folder) / settings_hash
        self.settings_hash = settings_hash

    def path(self, structure_id: str) -> Path:
        return self.folder / structure_id[:2] / f"{structure_id}.json"

    def files(self) -> list[Path]:
        """All entries, damaged ones too."""
        return sorted(self.folder.glob("??/*.json"))

    def read(self, structure_id: str, n_atoms: int) -> Label | None:
        """The stored label; None when there is none or when the entry is damaged (it is then computed anew)."""
        try:
            label = read_entry(self.path(structure_id))
        except (FileNotFoundError, DamagedEntry):
            return None
        return label if len(label.forces) == n_atoms else None

    def write(self, label: Label) -> None:
        content = asdict(label)
        write_json(self.path(label.structure_id), {"sha256": _digest(content), "label": content})

    def read_settings(self) -> dict[str, Any] | None:
        """The physics behind the settings hash, from the first good entry; None where there is none."""
        return next((label.settings for label in self.read_good()), None)

    def read_good(self) -> Iterator[Label]:
        """All labels that are not damaged, one at a time."""
        for file in self.files():
            try:
                yield read_entry(file)
            except DamagedEntry:
                continue


def open_stores(folder: Path) -> list[LabelStore]:
    """The store of each settings hash in `folder`."""
    return [LabelStore(folder, path.name) for path in sorted(Path(folder).glob("[0-9a-f]*")) if len(path.name) == 64]


def read_entry(file: Path) -> Label:
    """The label in one file of a store.

    Raises
    ------
    FileNotFoundError
        There is no such entry.
    DamagedEntry
        It is truncated or altered, lies under another name, or misses what an entry holds.
    """
    try:
        entry = json.loads(file.read_text())
        label = Label(**entry["label"])
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedEntry(f"not valid JSON, truncated or overwritten ({error})") from None
    except (KeyError, TypeError) as error:
        raise DamagedEntry(f"not the content of a label ({error})") from None
    if entry.get("sha256") != _digest(entry["label"]):
        raise DamagedEntry("its content does not have the sha256 written with it")
    if (label.structure_id, label.settings_hash) != (file.stem, file.parent.parent.name):
        raise DamagedEntry(f"lies under the name of another label; it is {label.structure_id} of {label.settings_hash}")
    atoms = Atoms(**label.structure)
    if structure_id(atoms) != label.structure_id:
        raise DamagedEntry("its structure does not have the structure_id of the label")
    if np.shape(label.forces) != (len(atoms), 3):
        raise DamagedEntry(f"forces of shape {np.shape(label.forces)} for {len(atoms)} atoms")
    return label


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
