"""All atoms around one atom, periodic images included, at a cost linear in the size of the frame."""

from itertools import product

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.spatial import cKDTree


def cell_heights(cell: np.ndarray) -> np.ndarray:
    """Distances (Å) between opposite faces of a cell, shape=(3,): what a cutoff must be compared with."""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def find_neighbours(atoms: Atoms, center: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Atoms closer than `radius` (Å) to atom `center`, every periodic image an entry of its own.

    Returns
    -------
    indices : dtype=int, shape=(n_neighbours,)
        Sorted; the atom itself is in the list only through its images.
    vectors : shape=(n_neighbours, 3), Å
        From the centre to each neighbour.
    """
    heights = cell_heights(atoms.cell.complete()[:])
    small = bool(np.any(heights[atoms.pbc] < 2 * radius))
    search = neighbours_by_list if small else neighbours_by_tree
    return search(atoms, center, radius)


def neighbours_by_tree(atoms: Atoms, center: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """`find_neighbours` with a k-d tree of the wrapped atoms, asked at each image of the centre.

    Moving the centre instead of the atoms makes orthogonal, triclinic and partly periodic cells one case.
    """
    cell = atoms.cell.complete()
    positions = atoms.get_positions(wrap=True)
    reach = np.where(atoms.pbc, np.ceil(radius / cell_heights(cell[:])), 0).astype(int)
    shifts = np.array(list(product(*(range(-n, n + 1) for n in reach)))) @ cell[:]
    images = positions[center] + shifts
    found = cKDTree(positions).query_ball_point(images, radius)
    indices = np.concatenate([np.asarray(members, dtype=int) for members in found])
    origins = np.repeat(images, [len(members) for members in found], axis=0)
    return _in_order(indices, positions[indices] - origins, radius)


def neighbours_by_list(atoms: Atoms, center: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """`find_neighbours` with ASE's neighbour list of the atoms near the centre along the wide axes of the cell."""
    cell = atoms.cell.complete()
    heights = cell_heights(cell[:])
    offsets = cell.scaled_positions(atoms.positions - atoms.positions[center])
    offsets -= np.where(atoms.pbc, np.round(offsets), 0)
    wide = ~atoms.pbc | (heights >= 2 * radius)
    near = np.flatnonzero(np.all(~wide | (np.abs(offsets) * heights <= radius), axis=1))
    subset = Atoms(atoms.numbers[near], positions=atoms.positions[near], cell=cell, pbc=atoms.pbc)
    i, j, vectors = neighbor_list("ijD", subset, radius)
    of_center = near[i] == center
    return _in_order(near[j[of_center]], vectors[of_center], radius)


def _in_order(indices: np.ndarray, vectors: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Without the centre itself, sorted by index; images of one atom by their rounded vectors."""
    distances = np.linalg.norm(vectors, axis=1)
    inside = (distances > 1e-9) & (distances < radius)
    indices, vectors = indices[inside], vectors[inside]
    order = np.lexsort((*np.round(vectors, 6).T, indices))
    return indices[order], vectors[order]
