"""Labelling a shard: each structure in a process of its own, so that one that fails costs that structure."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlip_auto.config_dft import Dft
from mlip_auto.ledger import Ledger
from mlip_auto.oracles import compute_settings_hash, describe_settings, get_code_version, make_calculator
from mlip_auto.paths import GenerationPaths
from mlip_auto.processes import die_with_parent
from mlip_auto.relabel import describe_change
from mlip_auto.store import Label, LabelStore, describe_structure
from mlip_auto.structures import read_json, read_structures

Record = dict[str, Any]
"""What happened to one structure: status, reason, seconds, cores, from_store, n_atoms."""


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


def label_shard(selected: Path, shard: int, shards: int, dft: Dft) -> LabelledShard:
    """Label every `shards`-th of the selected structures, which spreads large and small ones evenly.

    `dft.max_wait` counts from the time at which the selection was written.
    """
    deadline = None if dft.max_wait is None else Path(selected).stat().st_mtime + 60 * dft.max_wait
    ledger = Ledger(GenerationPaths.of_file(selected).ledger(f"{shard:04d}"), dft.max_core_hours)
    return label_structures(read_structures(selected)[shard::shards], dft, deadline, ledger)


def collect_labels(
    labels: Sequence[Path], records: Sequence[Path], earlier_labels: Sequence[Path], dft: Dft
) -> list[Atoms]:
    """Good labels of all shards of a generation.

    Raises
    ------
    TooManyFailures
        More of the generation's structures failed than `dft.max_failed_fraction` allows.
    MixedSettings
        A label of this or an earlier generation was made with other settings than the config asks for now.
    """
    check_failures(
        {identifier: record for file in records for identifier, record in read_json(file)["structures"].items()},
        dft.max_failed_fraction,
    )
    earlier = [atoms for file in earlier_labels for atoms in read_structures(file)]
    known = {atoms.info["structure_id"] for atoms in earlier}
    # --relabel labels what an earlier generation had left pending: it may be among this generation's structures too.
    collected = [atoms for file in labels for atoms in read_structures(file) if atoms.info["structure_id"] not in known]
    check_settings([*collected, *earlier], dft)
    return collected


def label_structures(
    structures: Sequence[Atoms], dft: Dft, deadline: float | None = None, ledger: Ledger | None = None
) -> LabelledShard:
    """Label `structures`, from the store where it has them.

    Parameters
    ----------
    deadline
        Seconds since the epoch; what is not labelled by then is `pending`.
    ledger
        Where the cost of each structure is noted; when it is spent, the rest is `pending`.
    """
    settings_hash = compute_settings_hash(dft)
    store = LabelStore(dft.store, settings_hash)
    shard = LabelledShard(settings_hash, labels=[], records={})
    for atoms in structures:
        identifier = atoms.info["structure_id"]
        record: Record = {"status": "completed", "reason": None, "from_store": True, "n_atoms": len(atoms)}
        label = store.read(identifier, len(atoms))
        if label is None:
            record["from_store"] = False
            if ledger and ledger.is_spent():
                outcome: Label | tuple[str, str] = (
                    "pending",
                    f"dft.max_core_hours ({ledger.max_core_hours:g}) was spent",
                )
            else:
                outcome = _label_in_child(atoms, dft, deadline)
            if isinstance(outcome, Label):
                store.write(outcome)
                label = outcome
            else:
                record["status"], record["reason"] = outcome
        record["seconds"] = 0.0 if label is None else label.seconds
        record["cores"] = dft.threads
        shard.records[identifier] = record
        if ledger and record["seconds"] and not record["from_store"]:
            ledger.add(identifier, record)
        if label is not None:
            shard.labels.append(attach_label(atoms, label))
    return shard


def attach_label(atoms: Atoms, label: Label) -> Atoms:
    """A copy of `atoms` that carries the label as ASE's extxyz does."""
    labelled = atoms.copy()
    labelled.calc = SinglePointCalculator(labelled, energy=label.energy, forces=np.array(label.forces))
    labelled.info["settings_hash"] = label.settings_hash
    labelled.info["code_version"] = label.code_version
    return labelled


def find_fault(energy: float, forces: np.ndarray, n_atoms: int, max_force: float) -> str | None:
    """Why a label cannot be trusted; None when nothing is wrong with it."""
    if forces.shape != (n_atoms, 3):
        return f"forces have shape {forces.shape}, expected ({n_atoms}, 3)"
    if not np.isfinite(energy) or not np.isfinite(forces).all():
        return "energy or forces are not finite"
    norms = np.linalg.norm(forces, axis=1)
    if norms.max() > max_force:
        return f"force of {norms.max():.1f} eV/Å on atom {norms.argmax()} is above dft.max_force ({max_force:g})"
    return None


def check_failures(records: dict[str, Record], max_failed_fraction: float) -> None:
    """Raise TooManyFailures, with each reason, when too many labels of a generation failed."""
    failed = {identifier: record for identifier, record in records.items() if record["status"] == "failed"}
    if len(failed) > max_failed_fraction * len(records):
        reasons = "\n".join(f"  {identifier[:12]}: {record['reason']}" for identifier, record in failed.items())
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


def _label_in_child(atoms: Atoms, dft: Dft, deadline: float | None) -> Label | tuple[str, str]:
    """A label, or (status, reason). The child is killed at the deadline."""
    if deadline is not None and time.time() >= deadline:
        return "pending", "dft.max_wait was over before this structure's turn"
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_compute_label, args=(atoms, dft, sender, os.getpid()))
    child.start()
    sender.close()
    answered = receiver.poll(None if deadline is None else max(0.0, deadline - time.time()))
    if not answered:
        child.kill()
        child.join()
        return "pending", "still running when dft.max_wait was over"
    try:
        answer = receiver.recv()
    except EOFError:
        child.join()
        return "failed", f"{dft.code} ended without a label (exit code {child.exitcode})"
    child.join()
    return answer


def _compute_label(atoms: Atoms, dft: Dft, sender: Connection, parent: int) -> None:
    """Run the oracle; every failure of it is an answer, with its message."""
    die_with_parent(parent)
    started = time.perf_counter()
    bare = atoms.copy()
    try:
        bare.calc = make_calculator(dft)
        energy, forces = float(bare.get_potential_energy()), np.array(bare.get_forces())
    except (
        Exception
    ) as error:  # a calculator may raise anything; whatever it is, it is this structure's recorded reason
        sender.send(("failed", f"{type(error).__name__}: {error}"))
        return
    fault = find_fault(energy, forces, len(atoms), dft.max_force)
    if fault is not None:
        sender.send(("failed", fault))
        return
    sender.send(
        Label(
            structure_id=atoms.info["structure_id"],
            settings_hash=compute_settings_hash(dft),
            energy=energy,
            forces=forces.tolist(),
            seconds=round(time.perf_counter() - started, 3),
            cores=dft.threads,
            code_version=get_code_version(dft),
            settings=describe_settings(dft),
            structure=describe_structure(bare),
        )
    )
