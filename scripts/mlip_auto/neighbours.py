"""All atoms around one atom, periodic images included, at a cost linear in the size of the frame."""

from itertools import product

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree


def cell_heights(cell: np.ndarray) -> np.ndarray:
    """Distances (Å) between opposite faces of a cell, shape=(3,): what a cutoff must be compared with."""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)


class NeighbourTree:
    """Neighbours of any atom of one frame: a k-d tree of its wrapped atoms, asked at each image of the centre.

    Moving the centre instead of the atoms makes orthogonal, triclinic, partly periodic and tiny cells one case.
    """

    def __init__(self, atoms: Atoms):
        self._cell = atoms.cell.complete()[:]
        self._heights = cell_heights(self._cell)
        self._pbc = atoms.pbc
        self._positions = atoms.get_positions(wrap=True)
        self._tree = cKDTree(self._positions, compact_nodes=False, balanced_tree=False)  # faster to build, enough here

    def find(self, center: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Atoms closer than `radius` (Å) to atom `center`, every periodic image an entry of its own.

        Returns
        -------
        indices : dtype=int, shape=(n_neighbours,)
            Sorted; the atom itself is in the list only through its images.
        vectors : shape=(n_neighbours, 3), Å
            From the centre to each neighbour.
        """
        reach = np.where(self._pbc, np.ceil(radius / self._heights), 0).astype(int)
        shifts = np.array(list(product(*(range(-n, n + 1) for n in reach)))) @ self._cell
        images = self._positions[center] + shifts
        found = self._tree.query_ball_point(images, radius)
        indices = np.concatenate([np.asarray(members, dtype=int) for members in found])
        origins = np.repeat(images, [len(members) for members in found], axis=0)
        vectors = self._positions[indices] - origins
        distances = np.linalg.norm(vectors, axis=1)
        inside = (distances > 1e-9) & (distances < radius)
        indices, vectors = indices[inside], vectors[inside]
        order = np.lexsort((*np.round(vectors, 6).T, indices))  # images of one atom by their rounded vectors
        return indices[order], vectors[order]


def find_neighbours(atoms: Atoms, center: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """`NeighbourTree.find` for one centre."""
    return NeighbourTree(atoms).find(center, radius)
