"""What labels cost, noted so that a killed job's labels stay paid, and the limit that it keeps."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_auto.config import load_config
from mlip_auto.config_dft import Dft
from mlip_auto.labelling import label_shard
from mlip_auto.ledger import Ledger, describe_spent, read_core_hours
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import read_json, structure_id, write_json, write_structures

TINY = load_config(Path(__file__).parents[1] / "workflow" / "tiny.yaml")


def select(paths: CampaignPaths, generation: int, count: int) -> list[Atoms]:
    """A selection of `count` structures on disk, others in each generation."""
    rng = np.random.default_rng(generation)
    structures = []
    for _ in range(count):
        atoms = bulk("Al", cubic=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info.update(structure_id=structure_id(atoms), generation=generation)
        structures.append(atoms)
    write_structures(paths.generation(generation).selected, structures)
    return structures


@pytest.fixture
def paths(tmp_path) -> CampaignPaths:
    return CampaignPaths(tmp_path)


@pytest.fixture
def emt(tmp_path) -> Dft:
    return Dft(code="emt", store=tmp_path / "store", threads=2)


def label(paths: CampaignPaths, generation: int, dft: Dft, shard: int = 0, shards: int = 1) -> dict:
    config = TINY.model_copy(update={"dft": dft})
    selected = paths.generation(generation).selected
    return label_shard(selected, shard, shards, config, paths.work(generation, "dft")).records


def test_each_label_computed_here_is_paid_once(paths, emt):
    select(paths, 0, 3)
    records = label(paths, 0, emt)
    paid = read_json(paths.generation(0).ledger("0000"))
    assert {entry["structure_id"]: entry["seconds"] for entry in paid} == {
        identifier: record["seconds"] for identifier, record in records.items()
    }
    assert all(entry["cores"] == 2 and entry["n_atoms"] == 4 and len(entry["rungs"]) == 1 for entry in paid)
    hours = sum(record["seconds"] * 2 for record in records.values()) / 3600
    assert read_core_hours(paths) == {0: pytest.approx(hours)}

    # The job was killed before its shard was written: the next one finds the labels in the store, and they stay paid.
    again = label(paths, 0, emt)
    assert all(record["from_store"] for record in again.values())
    assert read_core_hours(paths) == {0: pytest.approx(hours)}

    # A label that is computed a second time is paid a second time.
    for entry in emt.store.rglob("*.json"):
        entry.write_text("")
    label(paths, 0, emt)
    assert len(read_json(paths.generation(0).ledger("0000"))) == 6


def test_failures_are_paid_too(paths, emt):
    (atoms,) = select(paths, 0, 1)
    atoms.symbols[:] = "Fe"  # EMT has no parameters for iron
    write_structures(paths.generation(0).selected, [atoms])
    (record,) = label(paths, 0, emt).values()
    assert record["status"] == "failed"
    (paid,) = read_json(paths.generation(0).ledger("0000"))
    assert paid["status"] == "failed" and paid["seconds"] > 0


def test_the_limit_counts_all_generations_and_shards(paths, emt):
    for generation in (0, 1):
        select(paths, generation, 4)
    label(paths, 0, emt)
    label(paths, 1, emt, shard=0, shards=2)
    spent = sum(read_core_hours(paths).values())
    limited = emt.model_copy(update={"max_core_hours": spent})
    records = label(paths, 1, limited, shard=1, shards=2)
    assert [record["status"] for record in records.values()] == ["pending"] * 2
    assert all("dft.max_core_hours" in record["reason"] for record in records.values())
    assert not paths.generation(1).ledger("0001").exists()
    assert f"dft.max_core_hours ({spent:g}) reached" in describe_spent(paths, limited.max_core_hours)

    # What is in the store costs nothing and comes whatever is spent.
    assert all(record["status"] == "completed" for record in label(paths, 0, limited).values())
    more = emt.model_copy(update={"max_core_hours": 2 * spent})
    assert describe_spent(paths, more.max_core_hours) == ""
    assert not Ledger(paths.generation(1).ledger("0001"), more.max_core_hours).is_spent()
    assert any(record["status"] == "completed" for record in label(paths, 1, more, shard=1, shards=2).values())


def test_what_is_paid_after_the_summary_counts(paths, emt):
    select(paths, 0, 2)
    label(paths, 0, emt, shard=0, shards=2)
    (hours,) = read_core_hours(paths).values()
    summary = paths.generation(0).summary
    write_json(summary, {"core_hours_dft": hours})
    ledger = paths.generation(0).ledger("0000")
    content = ledger.read_text()
    ledger.write_text("never read: the summary says it")
    os.utime(ledger.parent, (0, 0))  # however coarse the file system's clock: older than the summary
    assert read_core_hours(paths) == {0: hours}
    ledger.write_text(content)
    label(paths, 0, emt, shard=1, shards=2)
    assert read_core_hours(paths)[0] > hours


def test_without_a_limit_nothing_is_spent(paths, emt):
    select(paths, 0, 1)
    label(paths, 0, emt)
    assert describe_spent(paths, None) == ""
    assert not Ledger(paths.generation(0).ledger("0000"), None).is_spent()
