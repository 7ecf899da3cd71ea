"""What the labels of a campaign cost: a file a labelling job, so that a killed job's labels stay paid."""

from pathlib import Path
from typing import Any

from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.structures import read_json, write_json


class Ledger:
    """The account of one labelling job, results/gen_NNN/ledger/{shard}.json, rewritten after each structure.

    It lists what was computed here and now: structures with a label from the store are not in it, failed ones and
    those computed a second time (a damaged entry, `--relabel`) are.
    """

    def __init__(self, file: Path, max_core_hours: float | None):
        self.file = Path(file)
        self.max_core_hours = max_core_hours
        self.paid: list[dict[str, Any]] = read_json(self.file) if self.file.exists() else []

    def add(self, structure_id: str, record: dict[str, Any]) -> None:
        """Note what `record` (its `seconds` and `cores`) says about a structure."""
        self.paid.append({"structure_id": structure_id, **record})
        write_json(self.file, self.paid)

    def is_spent(self) -> bool:
        """Whether all jobs of the campaign together have reached `max_core_hours`.

        Jobs that compute a structure at this moment are not counted: each may end one structure beyond the limit.
        """
        if self.max_core_hours is None:
            return False
        return sum(read_core_hours(CampaignPaths(self.file.parents[3])).values()) >= self.max_core_hours


def read_core_hours(paths: CampaignPaths) -> dict[int, float]:
    """Core-hours of DFT that the campaign paid, by generation."""
    folders = sorted(paths.results.glob("gen_[0-9][0-9][0-9]*"))
    return {int(folder.name.removeprefix("gen_")): _sum_core_hours(GenerationPaths(folder)) for folder in folders}


def describe_spent(paths: CampaignPaths, max_core_hours: float | None) -> str:
    """Why no further label may be paid; empty while some may."""
    if max_core_hours is None or (spent := sum(read_core_hours(paths).values())) < max_core_hours:
        return ""
    return f"dft.max_core_hours ({max_core_hours:g}) reached: {spent:.4g} core-hours of DFT are paid"


def _sum_core_hours(generation: GenerationPaths) -> float:
    """From the summary of a finished generation, so that not all ledgers of a long campaign are read each time.

    Any ledger that was written after the summary (`--relabel`) has changed the time of their folder.
    """
    ledgers, summary = generation.ledger("*"), generation.summary
    if not ledgers.parent.exists():
        return 0.0
    if summary.exists() and summary.stat().st_mtime > ledgers.parent.stat().st_mtime:
        return read_json(summary)["core_hours_dft"]
    paid = [record for file in ledgers.parent.glob(ledgers.name) for record in read_json(file)]
    return sum(record["seconds"] * record["cores"] for record in paid) / 3600
