"""Content-addressed labels: one file a label, safe with many writers, verified on read.

A label is found by what was computed (`structure_id`) and how (`settings_hash`), in any campaign that shares the
folder.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlip_auto.structures import write_json


@dataclass(frozen=True)
class Label:
    """Energy (eV) and forces (eV/Å, n_atoms x 3) of one structure, and what they cost."""

    structure_id: str
    settings_hash: str
    energy: float
    forces: list[list[float]]
    seconds: float
    cores: int
    code_version: str
    settings: dict[str, Any]


class LabelStore:
    """Finished labels in `folder`/{settings hash}/{first two digits}/{structure id}.json."""

    def __init__(self, folder: Path, settings_hash: str):
        self.folder = Path(folder) / settings_hash
        self.settings_hash = settings_hash

    def path(self, structure_id: str) -> Path:
        return self.folder / structure_id[:2] / f"{structure_id}.json"

    def read(self, structure_id: str, n_atoms: int) -> Label | None:
        """The stored label; None when there is none or when the entry is damaged (it is then computed anew)."""
        try:
            entry = json.loads(self.path(structure_id).read_text())
            if entry["sha256"] != _digest(entry["label"]):
                return None
            label = Label(**entry["label"])
        except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
            return None
        wanted = (structure_id, self.settings_hash, (n_atoms, 3))
        return label if (label.structure_id, label.settings_hash, np.shape(label.forces)) == wanted else None

    def write(self, label: Label) -> None:
        content = asdict(label)
        write_json(self.path(label.structure_id), {"sha256": _digest(content), "label": content})


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
