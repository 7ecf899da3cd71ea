"""Disorder: strains, rattles, vacancies, interstitials, thermal displacements, melts."""

from collections.abc import Callable, Iterator, Sequence
from math import inf, sqrt

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.data import covalent_radii
from ase.geometry import get_distances
from ase.units import kB

from mlip_auto.config_initial import Melt
from mlip_auto.distances import find_nearest_distance
from mlip_auto.oracle_md import iterate_frames

LARGEST_RATTLE = 0.1  # of the nearest distance: beyond it (Lindemann) a crystal melts
PROBE = 0.02  # Å, displacement that measures a force constant
VOID_SAMPLES = 2000  # random points among which the widest void is looked for
INTERSTITIAL_DISTANCE = 0.85  # of the sum of covalent radii

CalculatorFactory = Callable[[Atoms], BaseCalculator]


def distort(
    crystal: Atoms,
    strain: float,
    shear: float,
    rattles: dict[str, float],
    n_vacancies: int,
    rng: np.random.Generator,
) -> Atoms:
    """A strained and rattled copy with atoms removed.

    The cell is deformed by F = (1 + v) I + e, v drawn evenly from ± `strain`, the three off-diagonal components of the
    symmetric e from ± `shear`. Displacements along x, y, z are normal with standard deviation `rattles[element]` (Å).
    """
    deformation = np.eye(3) * (1 + rng.uniform(-strain, strain))
    yz, xz, xy = rng.uniform(-shear, shear, 3)
    deformation += [[0, xy, xz], [xy, 0, yz], [xz, yz, 0]]
    atoms = crystal.copy()
    atoms.set_cell(crystal.cell[:] @ deformation)
    deviations = np.array([rattles[symbol] for symbol in crystal.symbols])
    atoms.positions = crystal.positions @ deformation + deviations[:, None] * rng.normal(size=(len(atoms), 3))
    removed = rng.choice(len(atoms), n_vacancies, replace=False)
    del atoms[removed]
    return atoms


def insert_atoms(crystal: Atoms, symbols: Sequence[str], rng: np.random.Generator) -> Atoms:
    """A copy with interstitial atoms, each in the widest void that is left.

    Neighbours closer than 0.85 of the sum of covalent radii are pushed out to that distance.
    """
    atoms = crystal.copy()
    for symbol in symbols:
        points = rng.random((VOID_SAMPLES, 3)) @ atoms.cell[:]
        distances = get_distances(points, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)[1]
        void = points[distances.min(axis=1).argmax()]
        (vectors,), (lengths,) = get_distances(void, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        inserted = Atoms(symbol, positions=[void])
        limits = INTERSTITIAL_DISTANCE * (covalent_radii[inserted.numbers[0]] + covalent_radii[atoms.numbers])
        close = lengths < limits
        atoms.positions[close] += vectors[close] * (limits / lengths - 1)[close, None]
        atoms += inserted
    return atoms


def melt(
    crystal: Atoms, settings: Melt, timestep: float, make_calculator: CalculatorFactory, seed: np.random.SeedSequence
) -> Iterator[Atoms]:
    """Frames of MD by the oracle (Langevin, fixed cell, `timestep` in fs), one after the other without end."""
    atoms = crystal.copy()
    atoms.calc = make_calculator(atoms)
    rng = np.random.default_rng(seed)
    for _ in iterate_frames(atoms, settings.temperature, timestep, settings.steps, settings.every, rng):
        yield Atoms(atoms.numbers, positions=atoms.get_positions(wrap=True), cell=atoms.cell, pbc=atoms.pbc)


def thermal_displacements(
    crystals: Sequence[Atoms], temperature: float, make_calculator: CalculatorFactory
) -> dict[str, float]:
    """Root mean square displacement (Å) of each element in a harmonic crystal, u = sqrt(3kT / (m w²)).

    m w² is the force constant of one atom of the element, displaced in the first crystal that holds it (Einstein's
    model), so no mass is needed. u is at most 0.1 of the nearest distance, also where the atom sits at no minimum.
    """
    displacements: dict[str, float] = {}
    for crystal in crystals:
        largest = LARGEST_RATTLE * find_nearest_distance(crystal)
        if largest == inf:
            raise ValueError("rattle_temperature: an isolated atom has no crystal around it; give `rattles` instead")
        for element in sorted(set(crystal.symbols) - displacements.keys()):
            atom = int(np.flatnonzero(crystal.symbols == element)[0])
            stiffness = _force_constant(crystal, atom, make_calculator)
            harmonic = sqrt(3 * kB * temperature / stiffness) if stiffness > 0 else largest
            displacements[element] = min(harmonic, largest)
    return displacements


def _force_constant(crystal: Atoms, atom: int, make_calculator: CalculatorFactory) -> float:
    """-dF/dr (eV/Å²) of one atom along the body diagonal, which sees all three axes alike."""
    direction = np.full(3, 1 / sqrt(3))
    along = []
    for step in (-PROBE, PROBE):
        displaced = crystal.copy()
        displaced.positions[atom] += step * direction
        displaced.calc = make_calculator(displaced)
        along.append(displaced.get_forces()[atom] @ direction)
    return float(along[0] - along[1]) / (2 * PROBE)
