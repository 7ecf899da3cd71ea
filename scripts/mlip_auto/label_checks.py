"""Checks that a result of any code must pass before it counts as a label."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms

from mlip_auto.config_dft import Dft
from mlip_auto.scf_failures import Failure, Reason

FEWEST_LABELS = 8  # a distribution of fewer has no robust width
SMALLEST_FORCE = 1e-3  # eV/Å: a perfect crystal has no force, and zero no logarithm
NARROWEST_SPREAD = 0.1  # of the logarithm: labels that are all alike do not make a common one an outlier


def find_fault(energy: float, forces: np.ndarray, n_atoms: int, dft: Dft) -> Failure | None:
    """Why a label (eV, eV/Å) cannot be trusted; None when nothing is wrong with it."""
    if forces.shape != (n_atoms, 3):
        return Failure(Reason.REFUSED, f"forces have shape {forces.shape}, expected ({n_atoms}, 3)")
    if not np.isfinite(energy) or not np.isfinite(forces).all():
        return Failure(Reason.REFUSED, "energy or forces are not finite")
    norms = np.linalg.norm(forces, axis=1)
    if norms.max() > dft.max_force:
        return Failure(
            Reason.REFUSED,
            f"force of {norms.max():.1f} eV/Å on atom {norms.argmax()} is above dft.max_force ({dft.max_force:g})",
        )
    net = float(np.linalg.norm(forces.sum(axis=0))) / n_atoms
    if net > dft.max_net_force:
        return Failure(
            Reason.REFUSED,
            f"net force of {net:.3f} eV/Å an atom is above dft.max_net_force ({dft.max_net_force:g}); converge more",
        )
    return None


def find_outliers(labels: Sequence[Atoms], deviations: float | None) -> dict[str, str]:
    """Labels whose forces are far above those of their like in the generation: structure_id and why.

    Alike are cuts of MD, and structures of one family of `initial.structures`: a melt is no outlier among crystals.
    Compared is the logarithm of the largest force of each label, since forces of rattles of different size spread over
    factors; its width is 1.4826 times the median absolute deviation (Rousseeuw and Croux, JASA 88, 1273, 1993).
    """
    if deviations is None:
        return {}
    alike: dict[int | None, list[Atoms]] = {}
    for atoms in labels:
        alike.setdefault(atoms.info.get("family"), []).append(atoms)
    outliers: dict[str, str] = {}
    for group in alike.values():
        if len(group) >= FEWEST_LABELS:
            outliers |= _find_outliers(group, deviations)
    return outliers


def _find_outliers(labels: Sequence[Atoms], deviations: float) -> dict[str, str]:
    largest = np.array([np.linalg.norm(atoms.get_forces(), axis=1).max() for atoms in labels])
    logarithms = np.log(np.maximum(largest, SMALLEST_FORCE))
    median = float(np.median(logarithms))
    spread = max(1.4826 * float(np.median(np.abs(logarithms - median))), NARROWEST_SPREAD)
    return {
        atoms.info["structure_id"]: (
            f"largest force {force:.2f} eV/Å, {(logarithm - median) / spread:.1f} robust deviations above the "
            f"median {np.exp(median):.2f}; dft.outlier_deviations allows {deviations:g}"
        )
        for atoms, force, logarithm in zip(labels, largest, logarithms, strict=True)
        if logarithm > median + deviations * spread
    }


def describe_reasons(failed: Mapping[str, str]) -> str:
    """One line a structure: the first digits of its id, and why it has no label."""
    return "\n".join(f"  {identifier[:12]}: {reason}" for identifier, reason in failed.items())
