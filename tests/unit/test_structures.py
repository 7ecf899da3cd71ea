import signal
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk

from mlip_auto.structures import (
    get_force_mask,
    is_held_out,
    read_structures,
    structure_id,
    write_atomically,
    write_json,
    write_structures,
)


def test_id_is_the_same_after_extxyz(tmp_path):
    atoms = bulk("Al", cubic=True, a=4.05) * (2, 2, 2)
    atoms.positions += np.random.default_rng(1).normal(0, 0.3, atoms.positions.shape)
    identifier = structure_id(atoms)
    for _ in range(3):
        write_structures(tmp_path / "a.extxyz", [atoms])
        (atoms,) = read_structures(tmp_path / "a.extxyz")
        assert structure_id(atoms) == identifier


def test_id_sees_positions_species_cell_and_periodicity_but_not_lattice_translations():
    atoms = bulk("Al", cubic=True, a=4.05)
    variants = [atoms.copy() for _ in range(5)]
    variants[0].positions[0, 0] += 1e-4
    variants[1].symbols[0] = "Cu"
    variants[2].set_cell(variants[2].cell[:] * 1.001)
    variants[3].pbc = False
    variants[4].positions[1] += atoms.cell[0]
    ids = [structure_id(variant) for variant in variants]
    assert len({structure_id(atoms), *ids[:4]}) == 5
    assert ids[4] == structure_id(atoms)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_leaves_is_found_by_no_pattern(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from mlip_auto.structures import write_atomically
with write_atomically(Path({str(tmp_path / "0000.json")!r})) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert list(tmp_path.glob("*.json")) == []
    assert [file.read_text() for file in tmp_path.rglob("*.json")] == ["half"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"rmse": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_no_structures_make_an_empty_file_that_reads_as_none(tmp_path):
    write_structures(tmp_path / "none.extxyz", [])
    assert read_structures(tmp_path / "none.extxyz") == []


def test_held_out_share_of_hash_space():
    ids = [f"{int(number):016x}".ljust(64, "0") for number in range(0, 16**16, 16**16 // 1000)]
    assert sum(is_held_out(identifier, 0.1) for identifier in ids) == pytest.approx(100, abs=2)
    assert not any(is_held_out(identifier, 0.0) for identifier in ids)


def test_force_mask_is_all_atoms_where_there_is_none():
    atoms = bulk("Al", cubic=True)
    assert get_force_mask(atoms).tolist() == [True] * 4
    atoms.arrays["force_mask"] = np.array([1, 0, 0, 1])
    assert get_force_mask(atoms).tolist() == [True, False, False, True]
