"""The smallest distance allowed between two atoms: what keeps absurd structures out of the labels."""

from collections.abc import Iterable, Mapping
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from matscipy.neighbours import neighbour_list

COVALENT_FRACTION = 0.7
FARTHEST = 50.0  # Å: an atom without a neighbour within it is alone


def allowed_distances(
    elements: Iterable[str], overrides: Mapping[str, float] | None = None
) -> dict[tuple[str, str], float]:
    """Smallest distance (Å) allowed by sorted pair of elements.

    0.7 of the sum of ASE's covalent radii (Cordero et al., Dalton Trans. 2008, 2832), unless `overrides` has the pair,
    its key spelt as in `initial.min_distance` (sorted, e.g. "Au-Cu").
    """
    overrides = overrides or {}
    allowed = {}
    for pair in combinations_with_replacement(sorted(elements), 2):
        radii = sum(covalent_radii[atomic_numbers[element]] for element in pair)
        allowed[pair] = float(overrides.get("-".join(pair), COVALENT_FRACTION * radii))
    return allowed


def find_nearest_distance(atoms: Atoms) -> float:
    """Smallest distance (Å) between two atoms of `atoms`, under its periodic boundaries; infinite for an atom alone."""
    boxed = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.complete(), pbc=atoms.pbc)
    cutoff = 3.0
    while cutoff < FARTHEST:
        distances = neighbour_list("d", boxed, cutoff)
        if len(distances):
            return float(distances.min())
        cutoff *= 2
    return float("inf")


def list_too_close(
    atoms: Atoms, allowed: Mapping[tuple[str, str], float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of `atoms` closer than allowed, under its periodic boundaries, each pair in both directions.

    Returns
    -------
    i, j, distances, limits : arrays of equal length; distances in Å
    """
    boxed = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.complete(), pbc=atoms.pbc)
    i, j, distances = neighbour_list("ijd", boxed, max(allowed.values()))
    limits = np.zeros_like(distances)
    for (first, second), limit in allowed.items():
        a, b = atomic_numbers[first], atomic_numbers[second]
        forward = (atoms.numbers[i] == a) & (atoms.numbers[j] == b)
        backward = (atoms.numbers[i] == b) & (atoms.numbers[j] == a)
        limits[forward | backward] = limit
    close = distances < limits
    return i[close], j[close], distances[close], limits[close]


def find_too_close(atoms: Atoms, allowed: Mapping[tuple[str, str], float]) -> tuple[int, int, float, float] | None:
    """The worst pair closer than allowed as (i, j, distance, allowed), Å; None when there is none.

    The worst pair is the one of smallest distance relative to what its elements are allowed.
    """
    i, j, distances, limits = list_too_close(atoms, allowed)
    if len(i) == 0:
        return None
    worst = int(np.argmin(distances / limits))
    first, second = sorted((int(i[worst]), int(j[worst])))
    return first, second, float(distances[worst]), float(limits[worst])


def describe_too_close(atoms: Atoms, pair: tuple[int, int, float, float]) -> str:
    """A pair of `find_too_close` in words, with the key that sets its limit."""
    i, j, distance, limit = pair
    elements = "-".join(sorted((atoms.symbols[i], atoms.symbols[j])))
    return (
        f"atoms {i} and {j} ({elements}) are {distance:.2f} Å apart; "
        f"initial.min_distance.{elements} allows {limit:.2f} Å"
    )
