"""Small structures that several tests label."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from mlip_auto.structures import structure_id


def make_structures(count: int = 1) -> list[Atoms]:
    """Rattled cells of four Al atoms."""
    rng = np.random.default_rng(11)
    structures = []
    for _ in range(count):
        atoms = bulk("Al", cubic=True, a=4.05)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.info.update(structure_id=structure_id(atoms), generation=0)
        structures.append(atoms)
    return structures


def label_with_emt(atoms: Atoms) -> Atoms:
    """A copy with energy and forces by EMT."""
    labelled = atoms.copy()
    labelled.calc = EMT()
    energy, forces = labelled.get_potential_energy(), labelled.get_forces()
    labelled.calc = SinglePointCalculator(labelled, energy=energy, forces=forces)
    labelled.info["structure_id"] = structure_id(labelled)
    return labelled
