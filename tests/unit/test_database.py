"""The database against campaign files made from real EMT labels."""

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from example_structures import label_with_emt
from mlip_auto.database import DatabaseManager
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import structure_id, write_json, write_structures


def make_structure(seed: int, generation: int, **info) -> Atoms:
    atoms = bulk("Al", cubic=True)
    atoms.rattle(0.1, seed=seed)
    mask = np.ones(len(atoms), dtype=int)
    mask[-1] = 0
    atoms.arrays["force_mask"] = mask
    atoms.info.update(
        structure_id=structure_id(atoms),
        config_type="active_learning" if generation else "initial",
        generation=generation,
        gamma=2.5 + seed,
        reason="gamma 2.5 against the active set of generation 0",
        origin=f"rattle seed {seed}",
        energy_weight=0.0 if generation else 1.0,
        **info,
    )
    return atoms


def write_shard(generation, shard: str, labels: list[Atoms], statuses: dict[str, tuple[str, str | None]]) -> None:
    write_structures(generation.shard_labels(shard), labels)
    records = {
        identifier: {
            "status": status,
            "reason": reason,
            "seconds": 0.1,
            "from_store": False,
            "cores": 1,
            "n_atoms": 4,
        }
        for identifier, (status, reason) in statuses.items()
    }
    write_json(generation.shard_record(shard), {"structures": records, "settings_hash": "f" * 64})


@pytest.fixture
def campaign(tmp_path):
    """Generation 0: one completed, one failed, one pending. Generation 1: it, and a cut without a shard."""
    paths = CampaignPaths(tmp_path)
    good, bad, late = (make_structure(seed, 0) for seed in (1, 2, 3))
    cut = make_structure(4, 1, walker="md_900K", step=120)
    first, second = paths.generation(0), paths.generation(1)
    write_structures(first.selected, [good, bad, late])
    write_shard(
        first,
        "0",
        [label_with_emt(good)],
        {
            good.info["structure_id"]: ("completed", None),
            bad.info["structure_id"]: ("failed", "no convergence"),
        },
    )
    write_shard(first, "1", [], {late.info["structure_id"]: ("pending", "dft.max_wait was over")})
    write_structures(second.selected, [late, cut])
    write_shard(second, "0", [label_with_emt(late)], {late.info["structure_id"]: ("completed", None)})
    return paths, {"good": good, "bad": bad, "late": late, "cut": cut}


def test_every_selected_structure_is_one_row_with_its_state(campaign):
    paths, structures = campaign
    assert DatabaseManager(paths).rebuild() == 4
    with ase.db.connect(paths.database) as database:
        rows = {name: database.get(structure_id=atoms.info["structure_id"]) for name, atoms in structures.items()}
        assert database.count() == 4
        assert database.count(config_type="active_learning", generation=1) == 1
    assert {name: (row.status, row.generation) for name, row in rows.items()} == {
        "good": ("completed", 0),
        "bad": ("failed", 0),
        "late": ("completed", 1),
        "cut": ("pending", 1),
    }
    assert rows["bad"].failure == "no convergence"
    assert (rows["cut"].walker, rows["cut"].step, rows["cut"].energy_weight) == ("md_900K", 120, 0.0)
    assert rows["cut"].gamma == 6.5


def test_labels_and_masks_come_back_as_they_were_computed(campaign):
    paths, structures = campaign
    DatabaseManager(paths).rebuild()
    row = ase.db.connect(paths.database).get(structure_id=structures["good"].info["structure_id"])
    expected = label_with_emt(structures["good"])
    assert row.energy == pytest.approx(expected.get_potential_energy(), abs=1e-6)
    assert row.forces == pytest.approx(expected.get_forces(), abs=1e-6)
    assert row.data["force_mask"].tolist() == [1, 1, 1, 0]
    assert row.data["provenance"]["origin"] == "rattle seed 1"
    assert row.data["cost"] == {"seconds": 0.1, "cores": 1, "from_store": False}
    failed = ase.db.connect(paths.database).get(status="failed")
    assert failed.get("energy") is None


def test_rebuilding_replaces_the_file_and_leaves_nothing_else(campaign):
    paths, structures = campaign
    DatabaseManager(paths).rebuild()
    write_shard(
        paths.generation(1),
        "0",
        [label_with_emt(structures["late"]), label_with_emt(structures["cut"])],
        {structures[name].info["structure_id"]: ("completed", None) for name in ("late", "cut")},
    )
    assert DatabaseManager(paths).rebuild() == 4
    assert ase.db.connect(paths.database).count(status="completed") == 3
    assert [path.name for path in paths.results.iterdir() if path.is_file()] == ["database.db"]


def test_a_completed_structure_without_its_label_is_an_error(campaign):
    paths, structures = campaign
    write_structures(paths.generation(0).shard_labels("0"), [])
    with pytest.raises(
        ValueError,
        match=f"structure {structures['good'].info['structure_id']} is recorded as completed",
    ):
        DatabaseManager(paths).rebuild()
    assert not paths.database.exists()


def test_an_empty_campaign_gives_an_empty_database(tmp_path):
    paths = CampaignPaths(tmp_path)
    assert DatabaseManager(paths).rebuild() == 0
    assert ase.db.connect(paths.database).count() == 0
