"""The campaign's database: an ase.db file that holds every selected structure with its status and provenance.

It is derived: built whole from the generations' files by one local job, never written to by the jobs on nodes
(SQLite on a shared file system is not safe for several writers).
"""

from dataclasses import dataclass, field
from typing import Any

import ase.db
import numpy as np
from ase import Atoms

from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.state import last_generation
from mlip_auto.structures import (
    get_energy_weight,
    get_force_mask,
    read_structures,
    write_atomically,
)
from mlip_auto.summary import read_records

INFO_KEYS = ("gamma", "reason", "origin", "walker", "step")


@dataclass
class CandidateData:
    """What the generations' files say about one selected structure."""

    atoms: Atoms
    generation: int
    status: str = "pending"
    failure: str | None = None
    cost: dict[str, Any] = field(default_factory=dict)


class DatabaseManager:
    """The file `results/database.db` of one campaign."""

    def __init__(self, paths: CampaignPaths):
        self.paths = paths

    def rebuild(self) -> int:
        """Write the database anew from the generations' files and return its number of rows.

        One row a structure: one that waited for its label over several generations has the state of the last.
        Key-value pairs: `structure_id`, `status` (pending, completed, failed), `config_type`, `generation`
        (that labels it), `gamma`, `reason` (of its selection), `origin`, `walker`, `step` (of the cut),
        `energy_weight`, `failure` (why there is no label). Data: `force_mask`, `provenance` (all its `info`),
        `cost` (seconds, cores). Energy (eV) and forces (eV/Å) are stored for completed structures.

        Raises
        ------
        ValueError
            A structure is recorded as completed, but its label is in no file of `dft/`.
        """
        records: dict[str, CandidateData] = {}
        for number in range(last_generation(self.paths) + 1):
            for record in _read_records(self.paths.generation(number), number):
                records[record.atoms.info["structure_id"]] = record
        with (
            write_atomically(self.paths.database) as aside,
            ase.db.connect(aside, type="db", use_lock_file=False) as database,
        ):
            for record in records.values():
                _write_row(database, record)
        return len(records)


def _read_records(generation: GenerationPaths, number: int) -> list[CandidateData]:
    if not generation.selected.exists():
        return []
    records = {
        atoms.info["structure_id"]: CandidateData(atoms, number) for atoms in read_structures(generation.selected)
    }
    shards = generation.shard_labels("*")
    labels = {
        atoms.info["structure_id"]: atoms
        for path in sorted(shards.parent.glob(shards.name))
        for atoms in read_structures(path)
    }
    for identifier, entry in read_records(generation).items():
        if identifier not in records:
            continue  # a shard left over from an earlier selection
        record = records[identifier]
        record.status, record.failure = entry["status"], entry["reason"]
        record.cost = {key: entry[key] for key in ("seconds", "cores", "from_store")}
        if record.status == "completed":
            if identifier not in labels:
                raise ValueError(
                    f"{shards.parent}: structure {identifier} is recorded as completed, but no shard has its label; "
                    "remove this folder and run again: finished labels come from the store"
                )
            record.atoms = labels[identifier]
    return list(records.values())


def _write_row(database: ase.db.core.Database, record: CandidateData) -> None:
    info = record.atoms.info
    pairs = {
        "structure_id": info["structure_id"],
        "status": record.status,
        "config_type": info["config_type"],
        "generation": record.generation,
        "energy_weight": get_energy_weight(record.atoms),
        **{key: info[key] for key in INFO_KEYS if key in info},
    }
    if record.failure is not None:
        pairs["failure"] = record.failure
    data = {
        "force_mask": get_force_mask(record.atoms).astype(int),
        "provenance": {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()},
        "cost": record.cost,
    }
    database.write(record.atoms, key_value_pairs=pairs, data=data)
