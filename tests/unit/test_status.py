"""The status of a campaign that labels: what the files of jobs at work show, and the time that is left."""

import os
import time

from ase.build import bulk

from example_structures import label_with_emt
from mlip_auto.ledger import Ledger
from mlip_auto.paths import CampaignPaths
from mlip_auto.status import count_labels, estimate_minutes
from mlip_auto.structures import write_json, write_structures


def select(paths: CampaignPaths, generation: int, number: int) -> list[str]:
    structures = []
    for seed in range(number):
        atoms = bulk("Al", cubic=True)
        atoms.rattle(0.05, seed=seed)
        structures.append(label_with_emt(atoms))
    write_structures(paths.generation(generation).selected, structures)
    return [atoms.info["structure_id"] for atoms in structures]


def test_labels_of_running_and_of_finished_shards_are_counted_once(tmp_path):
    files = CampaignPaths(tmp_path).generation(0)
    assert count_labels(files) is None
    ids = select(CampaignPaths(tmp_path), 0, 6)
    assert count_labels(files) == {"selected": 6, "done": 0, "failed": 0}

    def add(shard: str, identifier: str, status: str) -> None:
        Ledger(files.ledger(shard), None).add(identifier, {"status": status, "seconds": 1.0, "cores": 1})

    add("0000", ids[0], "completed")
    add("0000", ids[1], "failed")
    add("0001", ids[2], "completed")
    assert count_labels(files) == {"selected": 6, "done": 2, "failed": 1}
    # The first shard ends: a label of it came from the store, which no ledger says.
    ended = {ids[0]: "completed", ids[1]: "failed", ids[3]: "completed"}
    write_json(files.shard_record("0000"), {"structures": {key: {"status": status} for key, status in ended.items()}})
    assert count_labels(files) == {"selected": 6, "done": 3, "failed": 1}
    write_json(files.refused, {ids[3]: "an outlier"})
    assert count_labels(files) == {"selected": 6, "done": 2, "failed": 2}


def set_age(path, minutes: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    then = time.time() - 60 * minutes
    os.utime(path, (then, then))


def test_the_time_left_comes_from_the_labels_so_far_and_the_generations_before(tmp_path):
    paths = CampaignPaths(tmp_path)
    before, now = paths.generation(0), paths.generation(1)
    assert estimate_minutes(paths, 0, None) is None
    set_age(before.candidates, 500)
    set_age(before.labels, 320)
    assert estimate_minutes(paths, 1, None) is None
    set_age(before.summary, 300)  # 20 min after its labels, 200 min after its candidates
    assert estimate_minutes(paths, 1, None) == 200
    set_age(now.selected, 30)
    assert round(estimate_minutes(paths, 1, {"selected": 40, "done": 9, "failed": 1})) == 30 * 3 + 20
    set_age(now.labels, 15)
    assert round(estimate_minutes(paths, 1, {"selected": 40, "done": 39, "failed": 1})) == 5
    set_age(now.labels, 60)
    assert estimate_minutes(paths, 1, {"selected": 40, "done": 39, "failed": 1}) == 0
