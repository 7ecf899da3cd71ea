"""The frame that cuts come from, what a cut is, and its two simple shapes: a cluster in vacuum and the whole cell."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlip_auto.distances import describe_too_close, find_too_close
from mlip_auto.neighbours import NeighbourTree

LONGEST_MOLECULE = 6.0  # Å: how far outside a cluster the rest of a molecule is looked for


class CutRefused(ValueError):
    """A cut that would be wrong or unphysical is not made; the message says why."""


class ParentFrame:
    """A frame that many cuts come from: what they all need of it is computed once, when first asked for."""

    def __init__(self, atoms: Atoms):
        self.atoms = atoms

    @cached_property
    def tree(self) -> NeighbourTree:
        return NeighbourTree(self.atoms)

    @cached_property
    def counts(self) -> dict[int, int]:
        """Atoms by atomic number."""
        found = np.bincount(self.atoms.numbers)
        return {int(number): int(found[number]) for number in np.flatnonzero(found)}

    def surroundings(self, center: int, radius: float) -> Atoms:
        """Atoms within `radius` (Å) of atom `center`, which comes first and at the origin; no cell.

        Periodic images are atoms of their own; array `parent_index`.
        """
        indices, vectors = self.tree.find(center, radius)
        parents = np.concatenate(([center], indices))
        atoms = Atoms(self.atoms.numbers[parents], positions=np.concatenate((np.zeros((1, 3)), vectors)), pbc=False)
        atoms.set_array("parent_index", parents)
        return atoms


@dataclass(frozen=True)
class ExtractedStructure:
    """A cut.

    Attributes
    ----------
    atoms
        info `energy_weight`; arrays `force_mask`, `parent_index` (index in the frame), `gamma` where the frame has it.
    center_atom_index
        The centre in `atoms`.
    has_faces
        Whether it is a periodic box smaller than the frame, where atoms meet that are no neighbours there.
    """

    atoms: Atoms
    center_atom_index: int
    has_faces: bool

    @property
    def force_mask(self) -> np.ndarray:
        """dtype=int, shape=(n_atoms,): 1 for atoms whose forces are trained on, 0 for the buffer."""
        return self.atoms.arrays["force_mask"]

    def vectors(self) -> np.ndarray:
        """From the centre to each atom, the nearest image: shape=(n_atoms, 3), Å."""
        return self.atoms.get_distances(self.center_atom_index, range(len(self.atoms)), mic=True, vector=True)


def cut_cluster(
    parent: ParentFrame, center: int, radius: float, trained_radius: float, vacuum: float, whole_molecules: bool
) -> ExtractedStructure:
    """Atoms within `radius` of the centre, not periodic, in `vacuum` (all Å); energy weight 0, for its surface.

    With `whole_molecules` those that the surface would cut are completed (bonded: within the sum of covalent radii).
    """
    atoms = parent.surroundings(center, radius)
    if whole_molecules:
        wider = parent.surroundings(center, radius + LONGEST_MOLECULE)
        first, second = neighbor_list("ij", wider, natural_cutoffs(wider, mult=1.15))
        bonds = coo_array((np.ones(len(first)), (first, second)), shape=(len(wider), len(wider)))
        molecules = connected_components(bonds, directed=False)[1]
        reached = np.unique(molecules[np.linalg.norm(wider.positions, axis=1) < radius])
        atoms = wider[np.isin(molecules, reached)]
    mask = np.linalg.norm(atoms.positions, axis=1) < trained_radius
    mask[0] = True
    atoms.center(vacuum=vacuum)
    return finish_cut(atoms, parent, mask, energy_weight=0.0)


def cut_cell(parent: ParentFrame, center: int) -> ExtractedStructure:
    """The whole frame, every atom trained on."""
    frame = parent.atoms
    atoms = Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    atoms.wrap()
    atoms.set_array("parent_index", np.arange(len(frame)))
    return finish_cut(atoms, parent, np.ones(len(frame), dtype=bool), energy_weight=1.0, center=center)


def finish_cut(
    atoms: Atoms, parent: ParentFrame, mask: np.ndarray, energy_weight: float, center: int = 0
) -> ExtractedStructure:
    """The cut made of `atoms` (array `parent_index`), which are trained on where `mask` is true."""
    atoms.info["energy_weight"] = energy_weight
    atoms.set_array("force_mask", mask.astype(int))
    if "gamma" in parent.atoms.arrays:
        atoms.set_array("gamma", parent.atoms.arrays["gamma"][atoms.arrays["parent_index"]])
    return ExtractedStructure(atoms, center, has_faces=bool(atoms.pbc.all()) and len(atoms) < len(parent.atoms))


def refuse_too_close(atoms: Atoms, allowed: Mapping[tuple[str, str], float]) -> None:
    """Raise CutRefused when two atoms are closer than `allowed` (Å by sorted pair of elements)."""
    too_close = find_too_close(atoms, allowed)
    if too_close is not None:
        raise CutRefused(describe_too_close(atoms, too_close))
