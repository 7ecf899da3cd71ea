import pytest
from ase import Atoms
from ase.build import bulk

from mlip_auto.distances import allowed_distances, describe_too_close, find_too_close


def test_limits_are_covalent_unless_overridden():
    # Covalent radii (Cordero): Cu 1.32 Å, Au 1.36 Å.
    allowed = allowed_distances(["Cu", "Au"], {"Au-Cu": 2.0})
    assert allowed == {
        ("Au", "Au"): pytest.approx(0.7 * 2.72),
        ("Au", "Cu"): 2.0,
        ("Cu", "Cu"): pytest.approx(0.7 * 2.64),
    }


def test_pair_across_a_boundary_is_found():
    atoms = Atoms("Si2", [[0.2, 5, 5], [9.0, 5, 5]], cell=[10, 10, 10], pbc=True)
    assert find_too_close(atoms, {("Si", "Si"): 1.75}) == (0, 1, pytest.approx(1.2), 1.75)
    atoms.pbc = False
    assert find_too_close(atoms, {("Si", "Si"): 1.75}) is None


def test_own_image_counts():
    assert find_too_close(bulk("Al", a=2.0), {("Al", "Al"): 1.5}) == (0, 0, pytest.approx(2 / 2**0.5), 1.5)


def test_each_pair_of_elements_has_its_own_limit():
    atoms = Atoms("HOSi", [[0, 0, 0], [0.97, 0, 0], [0, 0, 1.6]])  # no cell at all
    allowed = {
        ("H", "H"): 0.5,
        ("H", "O"): 0.8,
        ("H", "Si"): 1.7,
        ("O", "O"): 1.0,
        ("O", "Si"): 1.4,
        ("Si", "Si"): 1.75,
    }
    pair = find_too_close(atoms, allowed)
    assert pair == (0, 2, pytest.approx(1.6), 1.7)
    assert describe_too_close(atoms, pair) == (
        "atoms 0 and 2 (H-Si) are 1.60 Å apart; initial.min_distance.H-Si allows 1.70 Å"
    )


def test_worst_pair_is_relative_to_its_limit():
    atoms = Atoms("H2Si2", [[0, 0, 0], [0.45, 0, 0], [9, 0, 0], [10, 0, 0]])
    allowed = {("H", "H"): 0.5, ("H", "Si"): 1.0, ("Si", "Si"): 2.0}
    assert find_too_close(atoms, allowed) == (2, 3, pytest.approx(1.0), 2.0)
