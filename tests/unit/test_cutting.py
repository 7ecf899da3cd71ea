"""Cuts against shells worked out by hand, neighbours against ASE's list, boxes against their crystal."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from mlip_auto.config_initial import StructureSource
from mlip_auto.cutting import CutRefused
from mlip_auto.cutting_box import BoxShape, shape_box
from mlip_auto.distances import allowed_distances, find_too_close
from mlip_auto.extractor import EmbeddingExtractor
from mlip_auto.neighbours import find_neighbours
from mlip_auto.structures import structure_id

A = 4.05  # Å, fcc Al
ALLOWED = allowed_distances(["Al", "Cu", "Si"])


def make_extractor(mode: str, box: float | tuple[float, ...] | None = None, **settings) -> EmbeddingExtractor:
    defaults = {"cutoff": 4.0, "core_radius": 4.0, "buffer": 4.0, "trained_radius": 4.0, "vacuum": 6.0}
    shape = BoxShape(tuple(np.broadcast_to(box, 3))) if box else None
    return EmbeddingExtractor(mode, **{**defaults, "allowed": ALLOWED, "box": shape, "max_atoms": 500, **settings})


def make_hot_crystal(repeats: int, deviation: float = 0.1, seed: int = 0, element: str = "Al") -> Atoms:
    crystal = bulk("Al", "fcc", a=A, cubic=True) if element == "Al" else bulk("Si", "diamond", a=5.6, cubic=True)
    frame = crystal.repeat(repeats)
    frame.rattle(deviation, seed=seed)
    return frame


# Shells of fcc with a = 4.05 Å, neighbours at a * sqrt(n / 2):
#   n   distance   atoms      n   distance   atoms
#   1   2.864 Å      12       4   5.728 Å      12
#   2   4.050 Å       6       5   6.404 Å      24
#   3   4.960 Å      24       6   7.015 Å       8      7   7.577 Å  48      8   8.100 Å  6
# Core of 4.0 Å: the centre and shell 1, 1 + 12 = 13 atoms (shell 2 at 4.05 is just outside).
# Core 4.0 + buffer 1.0 = 5.0 Å: shells 1 to 3, 1 + 12 + 6 + 24 = 43 atoms.
# Core 4.0 + buffer 4.0 = 8.0 Å: shells 1 to 7, 43 + 12 + 24 + 8 + 48 = 135 atoms.
@pytest.mark.parametrize(("buffer", "n_atoms"), [(1e-6, 13), (0.1, 19), (1.0, 43), (4.0, 135)])
@pytest.mark.parametrize("place", ["middle", "corner"])
def test_cluster_has_the_shells_of_fcc(buffer, n_atoms, place):
    frame = bulk("Al", "fcc", a=A, cubic=True).repeat(3)  # 12.15 Å: R = 8 Å reaches periodic images
    middle = int(np.argmin(np.linalg.norm(frame.positions - 1.5 * A * np.array([1, 1, 0]), axis=1)))
    center = middle if place == "middle" else 0  # atom 0 sits at the origin: its shells cross three faces
    cut = make_extractor("cluster", buffer=buffer).extract_cluster(frame, center)
    assert len(cut.atoms) == n_atoms
    assert cut.force_mask.sum() == 13
    assert cut.atoms.get_distances(cut.center_atom_index, np.flatnonzero(cut.force_mask)).max() < 4.0
    assert cut.atoms.arrays["parent_index"][cut.center_atom_index] == center


def test_cluster_across_a_cell_boundary_is_the_cluster_in_the_middle():
    frame = make_hot_crystal(5)
    moved = frame.copy()
    moved.positions += 0.5 * frame.cell.lengths() - frame.positions[0]  # atom 0 from the corner to the middle
    moved.wrap()
    cuts = [make_extractor("cluster").extract_cluster(cell, 0).atoms for cell in (frame, moved)]
    np.testing.assert_array_equal(cuts[0].arrays["parent_index"], cuts[1].arrays["parent_index"])
    np.testing.assert_allclose(cuts[0].positions, cuts[1].positions, atol=1e-8)


def test_cluster_from_a_cell_smaller_than_the_radius_holds_images_as_atoms():
    # The primitive cell has one atom, 2.34 Å between its faces; all 42 neighbours within 5 Å are its own images.
    frame = bulk("Al", "fcc", a=A)
    cut = make_extractor("cluster", buffer=1.0).extract_cluster(frame, 0)
    assert len(cut.atoms) == 43
    assert cut.force_mask.sum() == 13
    assert set(cut.atoms.arrays["parent_index"]) == {0}
    distances = cut.atoms.get_all_distances()[np.triu_indices(43, 1)]
    assert distances.min() == pytest.approx(A / np.sqrt(2), abs=1e-8)


def test_cluster_stands_in_vacuum_and_its_energy_does_not_count():
    cut = make_extractor("cluster", vacuum=7.0).extract_cluster(make_hot_crystal(5), 17).atoms
    assert not cut.pbc.any()
    assert cut.positions.min(axis=0) == pytest.approx([7.0] * 3)
    assert cut.cell.lengths() - cut.positions.max(axis=0) == pytest.approx([7.0] * 3)
    assert cut.info["energy_weight"] == 0.0


def make_cells() -> dict[str, Atoms]:
    cubic = make_hot_crystal(3)
    sheared = cubic.copy()
    sheared.set_cell(cubic.cell[:] @ [[1, 0, 0], [0.45, 1, 0], [-0.3, 0.4, 1]], scale_atoms=True)
    slab = cubic.copy()
    slab.pbc = (True, True, False)
    unwrapped = cubic.copy()
    unwrapped.positions += np.random.default_rng(1).integers(-2, 3, (len(cubic), 3)) * cubic.cell.lengths()
    primitive = bulk("Cu", "hcp", a=2.55, c=4.1).repeat((1, 2, 1))
    chain = bulk("Si", "diamond", a=5.6, cubic=True).repeat((1, 1, 6))
    chain.rattle(0.1, seed=3)
    molecule = Atoms("Si3", [[0, 0, 0], [2.2, 0, 0], [0, 2.4, 0]])
    return {
        "cubic": cubic,
        "sheared": sheared,
        "slab": slab,
        "unwrapped": unwrapped,
        "primitive": primitive,
        "chain": chain,
        "molecule": molecule,
    }


@pytest.mark.parametrize("name", make_cells())
@pytest.mark.parametrize("radius", [3.0, 5.5, 9.0])
def test_neighbours_are_those_of_the_list_of_ase(name, radius):
    frame = make_cells()[name]
    of_atom, others, vectors = neighbor_list("ijD", frame, radius)
    for center in {0, len(frame) - 1}:
        found, found_vectors = find_neighbours(frame, center, radius)
        expected, expected_vectors = others[of_atom == center], vectors[of_atom == center]
        order = np.lexsort((*np.round(expected_vectors, 6).T, expected))
        np.testing.assert_array_equal(found, expected[order])
        np.testing.assert_allclose(found_vectors, expected_vectors[order], atol=1e-6)
        assert len(found) > 0


def test_hot_box_has_one_atom_for_each_site_and_the_centre_sees_no_difference():
    # 3 of 5 cells: 4 * 3^3 = 108 sites, whatever the thermal motion does at the faces.
    extractor = make_extractor("box", box=0.6, cutoff=5.0, core_radius=5.0, trained_radius=5.0)
    frame = make_hot_crystal(5, 0.15)
    for center in (0, 123, 311, 499):
        cut = extractor.extract_cluster(frame, center)
        box = cut.atoms
        assert len(box) == 108
        assert box.cell.lengths() == pytest.approx([3 * A] * 3)
        assert box.pbc.all()
        assert find_too_close(box, ALLOWED) is None
        assert len(set(box.arrays["parent_index"])) == 108
        expected, vectors = find_neighbours(frame, center, 5.0)
        found, box_vectors = find_neighbours(box, cut.center_atom_index, 5.0)
        np.testing.assert_array_equal(box.arrays["parent_index"][found], expected)
        np.testing.assert_allclose(box_vectors, vectors, atol=1e-8)
        assert cut.force_mask.sum() == 1 + len(expected)
        assert box.info["energy_weight"] == 0.0


def test_box_keeps_the_stoichiometry_of_an_ordered_compound():
    frame = bulk("AlCu", "cesiumchloride", a=2.9, cubic=True).repeat(6)
    frame.rattle(0.12, seed=2)
    extractor = make_extractor("box", box=2 / 3)
    for center in (0, 1, 200):
        cut = extractor.extract_cluster(frame, center).atoms
        assert cut.get_chemical_formula() == "Al64Cu64"


def test_box_follows_the_strain_of_its_frame():
    frame = make_hot_crystal(5, 0.12)
    frame.set_cell(frame.cell[:] @ [[1.02, 0, 0], [0.03, 1.01, 0], [0, -0.02, 0.99]], scale_atoms=True)
    extractor = make_extractor("box", box=0.6, cutoff=5.0, core_radius=5.0, trained_radius=5.0)
    cut = extractor.extract_cluster(frame, 77).atoms
    np.testing.assert_allclose(cut.cell[:], 0.6 * frame.cell[:])
    assert len(cut) == 108


def test_box_that_is_core_throughout_counts_its_energy():
    half_diagonal = 0.5 * np.sqrt(3) * 3 * A
    extractor = make_extractor("box", box=0.6, trained_radius=half_diagonal + 0.1)
    cut = extractor.extract_cluster(make_hot_crystal(5), 3)
    assert cut.force_mask.all()
    assert cut.atoms.info["energy_weight"] == 1.0


def test_box_does_not_fill_a_vacancy_beside_the_centre():
    frame = make_hot_crystal(5)
    center = 0
    neighbour = find_neighbours(frame, center, 3.3)[0][0]
    del frame[neighbour]
    extractor = make_extractor("box", box=0.6, cutoff=5.0, core_radius=5.0, trained_radius=5.0)
    cut = extractor.extract_cluster(frame, center)
    assert len(find_neighbours(cut.atoms, cut.center_atom_index, 3.3)[0]) == 11


def test_box_narrower_than_twice_the_cutoff_is_refused():
    frame = make_hot_crystal(5)
    frame.set_cell(frame.cell * 0.97, scale_atoms=True)  # pressed: 11.79 Å are left of 12.15 Å
    with pytest.raises(CutRefused, match=r"11\.79 Å.*12 Å"):
        make_extractor("box", 0.6, cutoff=6.0).extract_cluster(frame, 0)


def test_box_of_exactly_twice_the_cutoff_is_cut():
    extractor = make_extractor("box", 0.6, cutoff=1.5 * A)
    assert len(extractor.extract_cluster(make_hot_crystal(5), 0).atoms) == 108


@pytest.mark.parametrize("mode", ["cluster", "box", "cell"])
def test_cut_with_atoms_too_close_is_refused(mode):
    frame = make_hot_crystal(5, 0.05)
    neighbour = find_neighbours(frame, 0, 3.3)[0][0]
    frame.positions[neighbour] = frame.positions[0] + [1.0, 0, 0]
    with pytest.raises(CutRefused, match=r"1\.00 Å apart; initial\.min_distance\.Al-Al allows 1\.69 Å"):
        make_extractor(mode, 0.6).extract_cluster(frame, 0)


def test_cell_is_the_whole_frame():
    frame = make_hot_crystal(3)
    cut = make_extractor("cell").extract_cluster(frame, 40)
    assert len(cut.atoms) == len(frame)
    assert cut.center_atom_index == 40
    assert cut.force_mask.all()
    assert cut.atoms.info["energy_weight"] == 1.0
    assert structure_id(cut.atoms) == structure_id(frame)


@pytest.mark.parametrize(
    ("source", "lengths", "side", "expected"),
    [
        ({"prototype": "fcc", "supercell": (4, 4, 4)}, (16.2, 16.2, 16.2), 12.15, (0.75, 0.75, 0.75)),
        ({"prototype": "fcc", "supercell": (4, 4, 4)}, (16.2, 16.2, 16.2), 13.2, (0.75, 0.75, 0.75)),
        ({"prototype": "fcc", "supercell": (4, 4, 4)}, (16.2, 16.2, 16.2), None, (0.75, 0.75, 0.75)),
        ({"prototype": "fcc", "supercell": (2, 4, 4)}, (8.1, 16.2, 16.2), None, (1.0, 0.75, 0.75)),
        ({"prototype": "hcp", "supercell": (6, 6, 4)}, (19.2, 19.2, 20.8), 14.0, (4 / 6, 4 / 6, 3 / 4)),
        ({"file": "melt.xyz"}, (20.0, 20.0, 25.0), 10.0, (0.5, 0.5, 0.4)),
        ({"file": "melt.xyz"}, (20.0, 20.0, 25.0), None, (0.53, 0.53, 0.424)),
    ],
)
def test_box_spans_whole_crystal_cells(source, lengths, side, expected):
    start = Atoms(cell=lengths, pbc=True)
    assert shape_box(start, StructureSource(**source), side, 5.3).fractions == pytest.approx(expected)


def test_box_grows_by_crystal_cells_up_to_its_frame():
    shape = BoxShape((0.5, 0.75, 1.0), (0.25, 0.25, 0.25))
    assert shape.grow().fractions == (0.75, 1.0, 1.0)
    assert shape.grow().grow().grow() is None


def test_ionic_box_is_neutral_whatever_its_sides():
    frame = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(4)
    frame.rattle(0.15, seed=4)
    salt = {"allowed": allowed_distances(["Na", "Cl"]), "cutoff": 4.0, "box": (0.47, 0.52, 0.61)}
    plain, neutral = (make_extractor("box", **salt, neutral=neutral) for neutral in (False, True))
    surplus = []
    for center in (100, 200, 300, 400):
        cuts = [extractor.extract_cluster(frame, center).atoms for extractor in (plain, neutral)]
        surplus.append([cut.symbols.count("Na") - cut.symbols.count("Cl") for cut in cuts])
        assert len(cuts[1]) == len(cuts[0]) - abs(surplus[-1][0])
    assert any(before for before, _ in surplus)
    assert all(after == 0 for _, after in surplus)


def test_composition_change_is_said():
    frame = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(4)
    cut = make_extractor("box", allowed={("Cl", "Na"): 1.5}, box=0.5).extract_cluster(frame, 0)
    assert cut.atoms.info["composition_change"] == "none"
    cluster = make_extractor("cluster", buffer=2.0, allowed={("Cl", "Na"): 1.5}).extract_cluster(frame, 0).atoms
    sodium, chlorine = (cluster.symbols.count(element) for element in ("Na", "Cl"))
    change = sodium - round(len(cluster) / 2)
    assert sodium != chlorine
    assert f"Na {change:+d}" in cluster.info["composition_change"]


def test_clusters_of_molecules_hold_whole_molecules():
    frame = molecule("H2O")
    frame.set_cell([3.1] * 3)
    frame.pbc = True
    water = frame.repeat(5)
    water.rattle(0.02, seed=1)
    settings = {"allowed": allowed_distances(["H", "O"]), "buffer": 0.5}
    cut, whole = (
        make_extractor("cluster", **settings, whole_molecules=whole).extract_cluster(water, 0).atoms
        for whole in (False, True)
    )
    assert cut.symbols.count("H") != 2 * cut.symbols.count("O")
    assert whole.symbols.count("H") == 2 * whole.symbols.count("O")
    assert len(whole) > len(cut)


@pytest.mark.parametrize("mode", ["cluster", "box", "cell"])
def test_cut_larger_than_dft_can_afford_is_refused(mode):
    with pytest.raises(CutRefused, match=r"extraction\.max_atoms allows 100: (use|give)"):
        make_extractor(mode, 0.6, max_atoms=100).extract_cluster(make_hot_crystal(5), 0)
