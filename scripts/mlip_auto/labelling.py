"""Labelling a shard: each structure in a process of its own, so that one that fails costs that structure."""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlip_auto.calculation import Result
from mlip_auto.config import CampaignConfig
from mlip_auto.config_dft import Dft
from mlip_auto.distances import allowed_distances, describe_too_close, find_too_close
from mlip_auto.label_checks import describe_reasons, find_outliers
from mlip_auto.ledger import Ledger
from mlip_auto.oracles import compute_settings_hash, describe_settings
from mlip_auto.paths import GenerationPaths
from mlip_auto.recovery import climb
from mlip_auto.relabel import describe_change
from mlip_auto.scf_failures import Reason
from mlip_auto.store import Label, LabelStore, describe_structure
from mlip_auto.structures import read_json, read_structures

Record = dict[str, Any]
"""What happened to one structure: status, reason, seconds, cores, from_store, n_atoms; what was computed here adds
`rungs` ({rung, outcome, seconds, scf_steps} of each try), `scf_steps` (their sum), and `files` where they were kept."""


class TooManyFailures(RuntimeError):
    """More labels failed than `dft.max_failed_fraction` allows."""


class MixedSettings(RuntimeError):
    """Labels of two settings hashes in one training set."""


@dataclass
class LabelledShard:
    """Good labels of some structures, and what happened to each structure."""

    settings_hash: str
    labels: list[Atoms]
    records: dict[str, Record]

    @property
    def content(self) -> dict[str, Any]:
        """What dft/{shard}.json holds."""
        return {"settings_hash": self.settings_hash, "structures": self.records}


@dataclass
class CollectedLabels:
    """Labels of a generation that may be trained on, and why others were refused, by structure id."""

    labels: list[Atoms]
    refused: dict[str, str]


def label_shard(selected: Path, shard: int, shards: int, config: CampaignConfig, scratch: Path) -> LabelledShard:
    """Label every `shards`-th of the selected structures, which spreads large and small ones evenly.

    `dft.max_wait` counts from the time at which the selection was written. Calculations run in `scratch`.
    """
    dft = config.dft
    deadline = None if dft.max_wait is None else Path(selected).stat().st_mtime + 60 * dft.max_wait
    ledger = Ledger(GenerationPaths.of_file(selected).ledger(f"{shard:04d}"), dft.max_core_hours)
    allowed = allowed_distances(config.system.elements, config.initial.min_distance)
    return label_structures(read_structures(selected)[shard::shards], dft, scratch, deadline, ledger, allowed)


def collect_labels(
    labels: Sequence[Path], records: Sequence[Path], earlier_labels: Sequence[Path], dft: Dft
) -> CollectedLabels:
    """Good labels of all shards of a generation; those whose forces are outliers among them are refused.

    Raises
    ------
    TooManyFailures
        More of the generation's structures failed or were refused than `dft.max_failed_fraction` allows.
    MixedSettings
        A label of this or an earlier generation was made with other settings than the config asks for now.
    """
    earlier = [atoms for file in earlier_labels for atoms in read_structures(file)]
    known = {atoms.info["structure_id"] for atoms in earlier}
    # --relabel labels what an earlier generation had left pending: it may be among this generation's structures too.
    collected = [atoms for file in labels for atoms in read_structures(file) if atoms.info["structure_id"] not in known]
    refused = find_outliers(collected, dft.outlier_deviations)
    all_records = {key: record for file in records for key, record in read_json(file)["structures"].items()}
    for identifier, reason in refused.items():
        all_records[identifier] |= {"status": "failed", "reason": reason}
    check_failures(all_records, dft.max_failed_fraction)
    check_settings([*collected, *earlier], dft)
    return CollectedLabels([a for a in collected if a.info["structure_id"] not in refused], refused)


def label_structures(
    structures: Sequence[Atoms],
    dft: Dft,
    scratch: Path | None = None,
    deadline: float | None = None,
    ledger: Ledger | None = None,
    allowed: Mapping[tuple[str, str], float] | None = None,
) -> LabelledShard:
    """Label `structures`, from the store where it has them.

    Parameters
    ----------
    scratch
        Each structure is calculated in the folder {first 12 digits of its id} of this one, which is removed when that
        gives a label and kept when it does not. Not given: a new temporary folder.
    deadline
        Seconds since the epoch; what is not labelled by then is `pending`.
    ledger
        Where the cost of each structure is noted; when it is spent, the rest is `pending`.
    allowed
        Smallest distances as `distances.allowed_distances` gives them: a structure with closer atoms is refused unpaid.
    """
    scratch = Path(tempfile.mkdtemp(prefix="mlip-auto-")) if scratch is None else scratch
    settings_hash = compute_settings_hash(dft)
    store = LabelStore(dft.store, settings_hash)
    shard = LabelledShard(settings_hash, labels=[], records={})
    for atoms in structures:
        identifier = atoms.info["structure_id"]
        label = store.read(identifier, len(atoms))
        record: Record = {"from_store": label is not None, "n_atoms": len(atoms), "cores": dft.threads}
        if label is not None:
            record |= {"status": "completed", "reason": None, "seconds": label.seconds}
        elif allowed and (pair := find_too_close(atoms, allowed)):
            reason = f"{Reason.REFUSED}: {describe_too_close(atoms, pair)}"
            record |= {"status": "failed", "reason": reason, "seconds": 0.0}
        elif ledger and ledger.is_spent():
            reason = f"dft.max_core_hours ({ledger.max_core_hours:g}) was spent"
            record |= {"status": "pending", "reason": reason, "seconds": 0.0}
        elif deadline is not None and time.time() >= deadline:
            reason = "dft.max_wait was over before this structure's turn"
            record |= {"status": "pending", "reason": reason, "seconds": 0.0}
        else:
            label, computed = _compute_label(atoms, dft, settings_hash, scratch / identifier[:12], deadline)
            record |= computed
            if label is not None:
                store.write(label)
            if ledger:
                ledger.add(identifier, record)
        if label is not None and label.flag and not dft.accept_flagged:
            record |= {"status": "failed", "reason": f"flagged: {label.flag}; dft.accept_flagged is false"}
        shard.records[identifier] = record
        if label is not None and record["status"] == "completed":
            shard.labels.append(attach_label(atoms, label))
    return shard


def attach_label(atoms: Atoms, label: Label) -> Atoms:
    """A copy of `atoms` that carries the label as ASE's extxyz does."""
    labelled = atoms.copy()
    stress = None if label.stress is None else np.array(label.stress)
    labelled.calc = SinglePointCalculator(labelled, energy=label.energy, forces=np.array(label.forces), stress=stress)
    labelled.info["settings_hash"] = label.settings_hash
    labelled.info["code_version"] = label.code_version
    if label.flag:
        labelled.info["flagged"] = label.flag
    return labelled


def check_failures(records: dict[str, Record], max_failed_fraction: float) -> None:
    """Raise TooManyFailures, with each reason, when too many labels of a generation failed."""
    failed = {identifier: record for identifier, record in records.items() if record["status"] == "failed"}
    if len(failed) > max_failed_fraction * len(records):
        reasons = describe_reasons({identifier: record["reason"] for identifier, record in failed.items()})
        raise TooManyFailures(
            f"{len(failed)} of {len(records)} labels failed, dft.max_failed_fraction allows {max_failed_fraction:g}. "
            f"The good labels are in the store. Reasons:\n{reasons}"
        )


def check_settings(labels: Sequence[Atoms], dft: Dft) -> None:
    """Raise MixedSettings when a label was made with other settings than the config asks for now."""
    wanted = compute_settings_hash(dft)
    for atoms in labels:
        found = atoms.info["settings_hash"]
        if found != wanted:
            raise MixedSettings(
                f"label {atoms.info['structure_id'][:12]} of generation {atoms.info['generation']} was made with "
                f"other settings than the config asks for now, {describe_change(found, dft)}. Labels of two settings "
                "are not one data set: restore the old `dft` section, or run `mlip-auto run --relabel` (the store "
                "keeps both)."
            )


def _compute_label(
    atoms: Atoms, dft: Dft, settings_hash: str, folder: Path, deadline: float | None
) -> tuple[Label | None, Record]:
    """A label (None where there is none) and what to record of it, from the oracle and its ladder."""
    shutil.rmtree(folder, ignore_errors=True)  # what a killed or an earlier run left
    limit = None if dft.max_minutes is None else 60 * dft.max_minutes
    wait = None if deadline is None else max(0.0, deadline - time.time())
    climbed = climb(atoms, dft, folder, min((time for time in (limit, wait) if time is not None), default=None))
    steps = [rung["scf_steps"] for rung in climbed.rungs if rung["scf_steps"] is not None]
    record: Record = {
        "status": "completed",
        "reason": None,
        "seconds": round(sum(rung["seconds"] for rung in climbed.rungs), 3),
        "scf_steps": sum(steps) if steps else None,
        "rungs": climbed.rungs,
    }
    outcome = climbed.outcome
    if not isinstance(outcome, Result):
        if outcome.reason is Reason.OUT_OF_TIME and deadline is not None and time.time() >= deadline:
            return None, record | {"status": "pending", "reason": "still running when dft.max_wait was over"}
        return None, record | {"status": "failed", "reason": str(outcome), "files": str(folder)}
    shutil.rmtree(folder)
    label = Label(
        structure_id=atoms.info["structure_id"],
        settings_hash=settings_hash,
        energy=outcome.energy,
        forces=outcome.forces.tolist(),
        stress=None if outcome.stress is None else outcome.stress.tolist(),
        seconds=record["seconds"],
        cores=dft.threads,
        code_version=outcome.code_version,
        settings=describe_settings(dft),
        structure=describe_structure(atoms),
        scf_steps=record["scf_steps"],
        rungs=climbed.rungs,
        flag=climbed.flag,
    )
    return label, record
