"""The store with many writers at once, damaged entries, and its commands."""

import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from mlip_auto.config_dft import Dft
from mlip_auto.labelling import label_structures
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.store import DamagedEntry, LabelStore, describe_structure, open_stores, read_entry
from mlip_auto.structures import read_structures, structure_id

WRITERS = 8


def make_structures(count: int) -> list[Atoms]:
    rng = np.random.default_rng(5)
    structures = []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.info.update(structure_id=structure_id(atoms), generation=0)
        structures.append(atoms)
    return structures


@pytest.fixture
def emt(tmp_path) -> Dft:
    return Dft(code="emt", store=tmp_path / "store")


def store_command(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("mlip-auto"), "store", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)


def test_a_structure_survives_json_without_loss():
    strained = bulk("Cu") * (1, 2, 3)
    strained.rattle(0.1, seed=1)
    strained.set_cell(strained.cell[:] * (1 + 1 / 3), scale_atoms=True)
    for atoms in (strained, molecule("H2O"), Atoms("Al", cell=[1, 2, 3], pbc=[True, False, True])):
        again = Atoms(**json.loads(json.dumps(describe_structure(atoms))))
        assert again == atoms  # numbers, positions, cell and pbc, to the last bit


def write_again_and_again(store: Path, settings_hash: str, labels: list, start, rounds: int) -> None:
    mine = LabelStore(store, settings_hash)
    start.wait()
    for _ in range(rounds):
        for label in labels:
            mine.write(label)


def test_eight_processes_write_the_same_entries_at_once(emt, tmp_path):
    """Meanwhile a ninth reads: it finds every entry whole each time, and nothing is left beside them."""
    label_structures(make_structures(6), emt)
    (made,) = open_stores(emt.store)
    labels = list(made.read_good())
    shared = tmp_path / "shared"
    context = multiprocessing.get_context("fork")
    start = context.Event()
    arguments = (shared, made.settings_hash, labels, start, 10)
    writers = [context.Process(target=write_again_and_again, args=arguments) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    start.set()
    store, reads = LabelStore(shared, made.settings_hash), 0
    while any(writer.is_alive() for writer in writers):
        for file in store.files():
            read_entry(file)  # raises DamagedEntry were it broken
            reads += 1
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert reads > len(labels)
    assert [read_entry(file) for file in store.files()] == sorted(labels, key=lambda label: label.structure_id)
    left = {path for path in shared.rglob("*") if path.is_file()}
    assert left == set(store.files())


def test_eight_processes_label_the_same_structures_into_one_store(emt):
    structures = make_structures(4)
    with ProcessPoolExecutor(WRITERS) as pool:
        shards = list(pool.map(label_structures, [structures] * WRITERS, [emt] * WRITERS))
    energies = {tuple(label.get_potential_energy() for label in shard.labels) for shard in shards}
    assert len(energies) == 1
    (store,) = open_stores(emt.store)
    assert len([read_entry(file) for file in store.files()]) == len(structures)


def change(entry: dict, key: str, value: object) -> str:
    return json.dumps(entry | {"label": entry["label"] | {key: value}})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:300], "not valid JSON"),
        (lambda text: "", "not valid JSON"),
        (lambda text: "[]", "not the content of a label"),
        (lambda text: '{"sha256": "0", "label": {"energy": 1.0}}', "not the content of a label"),
        (lambda text: change(json.loads(text), "energy", -1.0), "sha256"),
        (lambda text: change(json.loads(text), "structure", {}), "sha256"),
    ],
)
def test_damage_is_found_and_cured_by_labelling_again(emt, tmp_path, damage, reason):
    structures = make_structures(2)
    label_structures(structures, emt)
    file = LabelStore(emt.store, compute_settings_hash(emt)).path(structures[0].info["structure_id"])
    whole = read_entry(file)
    file.write_text(damage(file.read_text()))
    with pytest.raises(DamagedEntry, match=reason):
        read_entry(file)
    verified = store_command("verify", folder=tmp_path)
    assert verified.returncode == 1
    assert f"{file.relative_to(tmp_path)}: " in verified.stdout and reason in verified.stdout
    assert "2 entries, 1 damaged." in verified.stdout
    again = label_structures(structures, emt)
    assert [record["from_store"] for record in again.records.values()] == [False, True]
    assert (read_entry(file).energy, read_entry(file).forces) == (whole.energy, whole.forces)
    assert store_command("verify", folder=tmp_path).returncode == 0


def test_an_entry_under_the_name_of_another_is_not_taken_for_it(emt):
    one, other = make_structures(2)
    label_structures([one], emt)
    store = LabelStore(emt.store, compute_settings_hash(emt))
    wrong = store.path(other.info["structure_id"])
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_bytes(store.path(one.info["structure_id"]).read_bytes())
    with pytest.raises(DamagedEntry, match="name of another label"):
        read_entry(wrong)
    assert store.read(other.info["structure_id"], len(other)) is None


def test_list_and_export(emt, tmp_path):
    structures = make_structures(3)
    labels = label_structures(structures, emt).labels
    other = emt.model_copy(update={"parameters": {"asap_cutoff": True}})
    label_structures(structures[:1], other)
    listed = store_command("list", folder=tmp_path)
    rows = {line.split()[0]: line.split()[1:] for line in listed.stdout.splitlines()[1:]}
    hashes = [compute_settings_hash(dft) for dft in (emt, other)]
    assert rows[hashes[0][:12]][:3] == ["emt", "3", "96"]
    assert rows[hashes[1][:12]][:3] == ["emt", "1", "32"]

    done = store_command("export", hashes[0][:6], "all.extxyz", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    exported = {atoms.info["structure_id"]: atoms for atoms in read_structures(tmp_path / "all.extxyz")}
    assert len(exported) == 3
    for label in labels:
        atoms = exported[label.info["structure_id"]]
        assert structure_id(atoms) == label.info["structure_id"]
        assert atoms.get_potential_energy() == pytest.approx(label.get_potential_energy(), abs=1e-7)
        assert atoms.get_forces() == pytest.approx(label.get_forces(), abs=1e-7)
        assert atoms.info["settings_hash"] == hashes[0]
        assert atoms.info["code"] == "emt"


def test_a_hash_that_names_no_settings_or_several_is_refused(emt, tmp_path):
    label_structures(make_structures(1), emt)
    for wrong in ("zz", "."):
        done = store_command("export", wrong, "all.extxyz", folder=tmp_path)
        assert done.returncode == 1 and compute_settings_hash(emt)[:12] in done.stderr
    assert not (tmp_path / "all.extxyz").exists()
    nowhere = store_command("list", "--store", "elsewhere", folder=tmp_path)
    assert nowhere.returncode == 1 and "elsewhere: no store is here" in nowhere.stderr
