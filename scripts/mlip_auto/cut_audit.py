"""Is a cut the question that its frame asks? The model's forces and gamma in the cut against those in the frame."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from scipy.spatial import cKDTree

from mlip_auto.cutting import ExtractedStructure, ParentFrame
from mlip_auto.distances import describe_too_close, find_too_close
from mlip_auto.fitted_potential import Evaluation, FittedPotential

SAME_GAMMA = 0.01  # relative: the centre's environment is not changed by the cut
SAME_PLACE = 1e-3  # Å


@dataclass(frozen=True)
class FrameReference:
    """The surroundings of a centre in its frame, and the model there; exact within `core_radius` (Å)."""

    core_radius: float
    surroundings: Atoms
    model: Evaluation
    gamma_md: float


def evaluate_frame(parent: ParentFrame, center: int, core_radius: float, potential: FittedPotential) -> FrameReference:
    """The model on what the forces of the core depend on: atoms within twice the cutoff of it, not the whole frame."""
    surroundings = parent.surroundings(center, core_radius + 2 * potential.cutoff)
    gamma_md = float(parent.atoms.arrays["gamma"][center])
    return FrameReference(core_radius, surroundings, potential.evaluate(surroundings), gamma_md)


@dataclass(frozen=True)
class Audit:
    """What the audit of a cut found.

    Attributes
    ----------
    problems
        Why the cut is not fit for a label; empty when it is.
    force_change, gamma_change
        Largest difference of a core atom between cut and frame: |ΔF| (eV/Å), |Δgamma| / max(1, gamma in the frame).
    gamma_center
        gamma of the centre in the cut.
    min_distance
        Smallest distance between two atoms of the cut, Å.
    boundary_above, boundary_gamma
        Atoms outside the core with gamma above the halting threshold, and their largest gamma.
    cut_gamma, force_changes
        By atom: gamma in the cut; |ΔF| of core atoms, 0 of others.
    """

    problems: tuple[str, ...]
    force_change: float
    gamma_change: float
    gamma_center: float
    min_distance: float
    boundary_above: int
    boundary_gamma: float
    cut_gamma: np.ndarray
    force_changes: np.ndarray

    def describe(self) -> str:
        found = "; ".join(self.problems) or "fit for a label"
        return (
            f"{found}; core forces change by up to {self.force_change:.3g} eV/Å, "
            f"{self.boundary_above} boundary atoms above the threshold, smallest distance {self.min_distance:.2f} Å"
        )

    def write(self, atoms: Atoms) -> None:
        """Into info (`audit`, `audit_*`) and arrays (`cut_gamma`, `force_change`) of the cut."""
        numbers: dict[str, Any] = {
            "force_change": self.force_change,
            "gamma_change": self.gamma_change,
            "gamma_center": self.gamma_center,
            "min_distance": self.min_distance,
            "boundary_above": self.boundary_above,
            "boundary_gamma": self.boundary_gamma,
        }
        atoms.info.update({f"audit_{key}": value for key, value in numbers.items()}, audit=self.describe())
        atoms.set_array("cut_gamma", self.cut_gamma)
        atoms.set_array("force_change", self.force_changes)


def audit_cut(
    cut: ExtractedStructure,
    reference: FrameReference,
    potential: FittedPotential,
    allowed: Mapping[tuple[str, str], float],
    threshold: float,
    max_force_change: float,
) -> Audit:
    """Compare the model in the cut with the model in the frame.

    Parameters
    ----------
    allowed
        Smallest distance (Å) by sorted pair of elements.
    threshold
        gamma at which MD halts: how many boundary atoms are above it is counted.
    max_force_change
        eV/Å that the force on a core atom may change by.
    """
    model = potential.evaluate(cut.atoms)
    vectors = cut.vectors()
    in_core = np.linalg.norm(vectors, axis=1) < reference.core_radius
    core = np.flatnonzero(in_core & cut.force_mask.astype(bool))
    offsets, partners = cKDTree(reference.surroundings.positions).query(vectors[core])
    moved = (offsets > SAME_PLACE) | (reference.surroundings.numbers[partners] != cut.atoms.numbers[core])
    force_changes = np.zeros(len(cut.atoms))
    force_changes[core] = np.linalg.norm(model.forces[core] - reference.model.forces[partners], axis=1)
    gamma_frame = reference.model.gamma[partners]
    gamma_changes = np.abs(model.gamma[core] - gamma_frame) / np.maximum(gamma_frame, 1)
    boundary = model.gamma[~in_core]
    audit = Audit(
        problems=(),
        force_change=float(force_changes.max()),
        gamma_change=float(gamma_changes.max()),
        gamma_center=float(model.gamma[cut.center_atom_index]),
        min_distance=find_smallest_distance(cut.atoms),
        boundary_above=int(np.sum(boundary > threshold)),
        boundary_gamma=float(boundary.max(initial=0.0)),
        cut_gamma=model.gamma,
        force_changes=force_changes,
    )
    problems = []
    if moved.any():
        problems.append(f"{moved.sum()} of {len(core)} core atoms are not where they are in the frame")
    if (pair := find_too_close(cut.atoms, allowed)) is not None:
        problems.append(describe_too_close(cut.atoms, pair))
    if abs(audit.gamma_center - reference.gamma_md) > SAME_GAMMA * reference.gamma_md:
        problems.append(f"gamma of the centre is {audit.gamma_center:.4g}, in MD it was {reference.gamma_md:.4g}")
    if audit.force_change > max_force_change:
        problems.append(
            f"the model's force on a core atom changes by {audit.force_change:.3g} eV/Å; "
            f"extraction.max_force_change allows {max_force_change:g}"
        )
    return replace(audit, problems=tuple(problems))


def find_smallest_distance(atoms: Atoms) -> float:
    """Å, under the periodic boundaries; infinite for an atom alone within 5 Å."""
    boxed = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.complete(), pbc=atoms.pbc)
    return float(neighbour_list("d", boxed, 5.0).min(initial=np.inf))
