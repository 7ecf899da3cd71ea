"""The cut asks the question that halted MD: gamma of its centre is that of the atom in the MD frame."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlip_auto.ace import build_basis, compute_active_set, compute_gamma
from mlip_auto.config import AceBasis
from mlip_auto.cutting_box import BoxShape
from mlip_auto.distances import allowed_distances
from mlip_auto.extractor import EmbeddingExtractor

CUTOFF = 5.0
SETTINGS = AceBasis(
    cutoff=CUTOFF, number_of_functions_per_element=40, nradmax_by_orders=[10, 4, 2], lmax_by_orders=[0, 3, 2]
)
CRYSTALS = {
    "fcc Al, 3 of 5 cells": (bulk("Al", a=4.05, cubic=True), (5, 5, 5), 3),
    "diamond Si, 2 of 3 cells": (bulk("Si", a=5.6, cubic=True), (3, 3, 3), 2),
    "hcp Ti, skew axes": (bulk("Ti", a=2.95, c=4.68), (6, 6, 4), (4, 4, 3)),
    "B2 NiAl": (bulk("NiAl", "cesiumchloride", a=2.9, cubic=True), (5, 5, 5), 4),
}


def rattle(crystal: Atoms, deviation: float, rng: np.random.Generator) -> Atoms:
    atoms = crystal.copy()
    atoms.positions += rng.normal(scale=deviation, size=(len(atoms), 3))
    return atoms


@pytest.mark.parametrize("mode", ["box", "cluster"])
@pytest.mark.parametrize("name", CRYSTALS)
def test_gamma_of_the_centre_is_the_same_in_cut_and_frame(name, mode):
    unit, repeats, box = CRYSTALS[name]
    elements = sorted(set(unit.symbols))
    rng = np.random.default_rng(5)
    basis = build_basis(SETTINGS, elements)
    active_set = compute_active_set(basis, [rattle(unit.repeat(2), 0.1, rng) for _ in range(30)])
    frame = rattle(unit.repeat(repeats), 0.13, rng)
    center = int(rng.integers(len(frame)))
    frame.positions[center] += 0.4  # well outside what the active set knows
    (in_frame,) = compute_gamma(basis, active_set, [frame])
    extractor = EmbeddingExtractor(
        mode=mode,
        cutoff=CUTOFF,
        core_radius=CUTOFF,
        buffer=1.0,
        trained_radius=CUTOFF,
        vacuum=6.0,
        allowed=allowed_distances(elements),
        box=BoxShape(tuple(np.divide(box, repeats) * np.ones(3))),
    )
    cut = extractor.extract_cluster(frame, center)
    (in_cut,) = compute_gamma(basis, active_set, [cut.atoms])
    assert in_frame[center] > 2
    assert in_cut[cut.center_atom_index] == pytest.approx(in_frame[center], rel=1e-3)
    # The far side of the cut is another matter: the mask is what keeps it out.
    outside = cut.force_mask == 0
    assert not np.allclose(in_cut[outside], in_frame[cut.atoms.arrays["parent_index"][outside]], rtol=1e-3)
