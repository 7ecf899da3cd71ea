"""A `dft` section that changed in mid-campaign: said in words, or followed on purpose by labelling anew.

Relabelling goes generation by generation: Snakemake makes the labels of each selection again, with the settings of
now (from the store where they are there). The old labels stay in the store. The summary of the last generation goes
first of all, so that its fit and its MD are made anew on the new labels, however often the driver is killed on the way.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mlip_auto.config_dft import Dft
from mlip_auto.oracles import compute_settings_hash, describe_settings
from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.state import last_generation
from mlip_auto.store import LabelStore
from mlip_auto.structures import read_json


def describe_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "dft.") -> list[str]:
    """Each key that two settings do not share, as `dft.parameters.ecutwfc: 15 -> 20`."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key, "not given"), new.get(key, "not given")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += describe_difference(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} -> {after}")
    return lines


def describe_change(settings_hash: str, dft: Dft) -> str:
    """How the settings behind `settings_hash` differ from those of `dft`; both are named.

    The old ones are read from the labels in the store, which may have been moved away.
    """
    old, new = LabelStore(dft.store, settings_hash).read_settings(), describe_settings(dft)
    both = f"settings {settings_hash[:12]} -> {compute_settings_hash(dft)[:12]}"
    if old is None:
        return f"{both} ({dft.store} holds no label of the old ones to say what they were; the new ones are {new})"
    return f"{both}: {'; '.join(describe_difference(old, new))}"


def find_other_settings(paths: CampaignPaths, dft: Dft) -> dict[int, str]:
    """Settings hash of labels that were made with other settings than `dft` asks for now, by generation."""
    wanted = compute_settings_hash(dft)
    found = {}
    for number, files in _labelled_generations(paths):
        hashes = {read_json(record)["settings_hash"] for record in files.list_shard_records()} - {wanted}
        if hashes:
            found[number] = min(hashes)
    return found


def forget_last_fit(paths: CampaignPaths) -> None:
    """Remove what must be made anew although no label in it is stale: the last summary, MD frames of the oracle."""
    paths.generation(last_generation(paths)).summary.unlink(missing_ok=True)
    for frames in paths.results.glob("reference/*.extxyz"):
        frames.unlink()


def restart_waiting(files: GenerationPaths) -> None:
    """`dft.max_wait` counts from the time at which the selection was written: let that be now."""
    os.utime(files.selected)


def drop_other_shards(files: GenerationPaths, dft: Dft) -> None:
    """Remove shards of other settings: left over where the config now asks for fewer of them."""
    wanted = compute_settings_hash(dft)
    for record in files.list_shard_records():
        if read_json(record)["settings_hash"] != wanted:
            files.shard_labels(record.stem).unlink(missing_ok=True)
            record.unlink()


def list_labelled(paths: CampaignPaths) -> list[int]:
    """Generations whose labelling has begun."""
    return [number for number, _ in _labelled_generations(paths)]


def _labelled_generations(paths: CampaignPaths) -> Iterator[tuple[int, GenerationPaths]]:
    for number in range(last_generation(paths) + 1):
        files = paths.generation(number)
        if files.selected.exists() and files.list_shard_records():
            yield number, files
