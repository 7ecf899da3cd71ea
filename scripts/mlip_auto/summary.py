"""The summary of a generation: what the driver decides from and what every page shows."""

from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Any

from ase import Atoms

from mlip_auto.config import CampaignConfig
from mlip_auto.ledger import describe_spent, read_core_hours
from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.state import decide_generation
from mlip_auto.structures import read_json, read_structures


def list_waiting(files: GenerationPaths) -> list[Atoms]:
    """Candidates of the next generation: what this one cut out, and what it selected and left without a label."""
    records = read_records(files)
    pending = [
        atoms for atoms in read_structures(files.selected) if records[atoms.info["structure_id"]]["status"] == "pending"
    ]
    return [*pending, *read_structures(files.extracted)]


def read_records(files: GenerationPaths) -> dict[str, dict[str, Any]]:
    """What happened to each selected structure, by structure id; a label refused among its generation has failed."""
    records = {
        identifier: record
        for file in files.list_shard_records()
        for identifier, record in read_json(file)["structures"].items()
    }
    if files.refused.exists():
        for identifier, reason in read_json(files.refused).items():
            records[identifier] |= {"status": "failed", "reason": reason}
    return records


def summarise_generation(
    files: GenerationPaths, generation: int, confirmation: int, outcomes: Sequence[Path], config: CampaignConfig
) -> dict[str, Any]:
    """The content of summary.json.

    Parameters
    ----------
    confirmation
        Confirmations that have run on this generation's potential.
    outcomes
        outcome.json of each walker, those of the confirmations included.
    """
    records = list(read_records(files).values())
    metrics = read_json(files.metrics)
    walkers = {Path(file).parent.name: read_json(file) for file in outcomes}
    labelled = len(read_structures(files.labels))
    waiting = len(list_waiting(files))
    gammas = [walker["gamma_max"] for walker in walkers.values() if walker["gamma_max"] is not None]
    campaign = CampaignPaths(files.directory.parents[1])
    core_hours_dft = read_core_hours(campaign)[generation]
    core_seconds = metrics["seconds"] * metrics["cores"] + sum(walker["seconds"] for walker in walkers.values())
    decision, reason = decide_generation(
        generation=generation,
        outcomes={name: walker["outcome"] for name, walker in walkers.items()},
        confirmations_done=confirmation,
        labelled=labelled,
        next_candidates=waiting,
        no_more_labels=describe_spent(campaign, config.dft.max_core_hours),
        loop=config.loop,
    )
    return {
        "generation": generation,
        "candidates": len(read_structures(files.candidates)),
        "selected": len(records),
        "labelled": labelled,
        "failed": sum(record["status"] == "failed" for record in records),
        "pending": sum(record["status"] == "pending" for record in records),
        "rmse": metrics["rmse"],
        "gamma_max": max(gammas, default=None),
        "walkers": walkers,
        "core_hours": round(core_hours_dft + core_seconds / 3600, 5),
        "core_hours_dft": core_hours_dft,
        "minutes": round((time() - files.candidates.stat().st_mtime) / 60, 2),
        "settings_hash": metrics["settings_hash"],
        "versions": metrics["versions"],
        "confirmations_done": confirmation,
        "next_candidates": waiting,
        "cuts_refused": read_json(files.cuts_refused),
        "decision": decision.value,
        "reason": reason,
    }
