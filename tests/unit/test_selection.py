import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_auto.ace import build_basis, compute_active_set, compute_gamma
from mlip_auto.selection import CurrentModel, select_structures
from mlip_auto.structures import structure_id


@pytest.fixture
def basis(small_basis):
    return build_basis(small_basis, ["Al"])


def make_candidates(amplitudes, seed=11):
    rng = np.random.default_rng(seed)
    candidates = []
    for amplitude in amplitudes:
        atoms = bulk("Al", cubic=True, a=4.05) * (2, 2, 2)
        atoms.positions += rng.normal(0, amplitude, atoms.positions.shape)
        candidates.append(atoms)
    return candidates


def test_generation_zero_covers_all_candidates_with_few(basis):
    """What is left out lies inside the active set of what is selected: gamma at most 1."""
    candidates = make_candidates([0.02] * 6 + [0.15] * 6)
    selected = select_structures(candidates, basis, max_structures=12, current=None, known_ids=set())
    assert 0 < len(selected) < len(candidates)
    gammas = compute_gamma(basis, compute_active_set(basis, selected), candidates)
    assert max(gamma.max() for gamma in gammas) <= 1.02
    assert all("rows of the joint active set" in atoms.info["reason"] for atoms in selected)
    assert all(atoms.info["structure_id"] == structure_id(atoms) for atoms in selected)


def test_generation_zero_is_filled_up_to_five_environments_a_function(basis):
    """15 functions want 75 environments: cells of one atom that own no row come in until there are as many."""
    cells = [atoms[:1] for atoms in make_candidates([0.0])]
    for volume in np.linspace(0.9, 1.1, 100):
        atom = cells[0].copy()
        atom.set_cell(np.eye(3) * (16.6 * volume) ** (1 / 3))
        cells.append(atom)
    selected = select_structures(cells[1:], basis, 100, None, set())
    owners = [atoms for atoms in selected if "owns no row" not in atoms.info["reason"]]
    assert len(owners) <= 15
    assert len(selected) == 75
    assert len(select_structures(cells[1:], basis, 20, None, set())) == 20


def test_at_most_max_structures_those_that_own_most(basis):
    candidates = make_candidates([0.15] * 8)
    everything = select_structures(candidates, basis, 8, None, set())
    best = select_structures(candidates, basis, 3, None, set())
    assert [a.info["structure_id"] for a in best] == [a.info["structure_id"] for a in everything[:3]]


def test_duplicates_and_known_structures_are_dropped(basis):
    candidates = make_candidates([0.15] * 4)
    known = structure_id(candidates[0])
    selected = select_structures([*candidates, candidates[1].copy()], basis, 10, None, {known})
    ids = [atoms.info["structure_id"] for atoms in selected]
    assert len(set(ids)) == len(ids)
    assert known not in ids


def test_later_generations_take_what_the_training_set_does_not_know(basis, al_labels):
    current = CurrentModel(3, compute_active_set(basis, al_labels), al_labels)
    known_like, unknown = make_candidates([0.05, 0.35])
    selected = select_structures([known_like, unknown], basis, 10, current, set())
    assert [atoms.info["structure_id"] for atoms in selected] == [structure_id(unknown)]
    assert selected[0].info["gamma"] > 1
    assert "against generation 3" in selected[0].info["reason"]
    gamma = compute_gamma(basis, current.active_set, [unknown])[0].max()
    assert selected[0].info["gamma"] == pytest.approx(gamma)


def test_buffer_atoms_count_neither_for_selection_nor_for_gamma(basis, al_labels):
    current = CurrentModel(0, compute_active_set(basis, al_labels), al_labels)
    (unknown,) = make_candidates([0.13])
    gamma = compute_gamma(basis, current.active_set, [unknown])[0]
    unknown.arrays["force_mask"] = (gamma <= 1).astype(int)
    assert 0 < unknown.arrays["force_mask"].sum() < len(unknown)
    assert select_structures([unknown], basis, 10, current, set()) == []


def test_no_candidates_select_nothing(basis):
    assert select_structures([], basis, 5, None, set()) == []


def test_isolated_atoms_come_first_though_they_own_no_row(basis):
    atom = Atoms("Al", cell=[12, 12, 12])
    selected = select_structures([*make_candidates([0.15] * 3), atom], basis, 2, None, set())
    assert len(selected) == 2
    assert len(selected[0]) == 1 and "energies are relative to it" in selected[0].info["reason"]
