"""The training set: what is fitted with which weight, and how good the fit is over the atoms that count."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from pyace.basis import BBasisConfiguration

from mlip_auto.ace import ActiveSet, compute_gamma, predict
from mlip_auto.structures import get_energy_weight, get_force_mask, is_held_out, is_isolated_atom


class NoTrainingData(ValueError):
    """A training set that cannot be fitted."""


@dataclass(frozen=True)
class TrainingSet:
    """Labels of all generations, split by content hash.

    `reference_energies` (eV by element) are subtracted from each energy, in every generation the same ones.
    """

    train: list[Atoms]
    held_out: list[Atoms]
    reference_energies: dict[str, float]


def split_labels(labels: Sequence[Atoms], held_out_fraction: float) -> tuple[list[Atoms], list[Atoms]]:
    """Train and held-out labels: membership depends on the structure alone."""
    train: list[Atoms] = []
    held_out: list[Atoms] = []
    for atoms in labels:
        (held_out if is_held_out(atoms.info["structure_id"], held_out_fraction) else train).append(atoms)
    return train, held_out


def build_training_set(labels_by_generation: Sequence[Sequence[Atoms]], held_out_fraction: float) -> TrainingSet:
    """Split all labels; reference energies from generation 0 alone, so that they are fixed for the whole campaign.

    Isolated atoms decide theirs on whichever side of the split they fall: they are nothing else.
    """
    train, held_out = split_labels([atoms for labels in labels_by_generation for atoms in labels], held_out_fraction)
    if not any(get_energy_weight(atoms) > 0 for atoms in train):
        raise NoTrainingData("no label of the training set carries an energy: generation 0 must hold periodic cells")
    initial, unseen = split_labels(labels_by_generation[0], held_out_fraction)
    initial += [atoms for atoms in unseen if is_isolated_atom(atoms)]
    return TrainingSet(train, held_out, fit_reference_energies(initial))


def fit_reference_energies(labels: Sequence[Atoms]) -> dict[str, float]:
    """Energy per atom of each element (eV): that of the isolated atom where there is one, which ACE cannot fit.

    Others by least squares over the compositions of periodic crystals (of all labels where none is periodic). Of
    minimum norm where the compositions are alike: only their sum over a structure then has a meaning.
    """
    weighted = [atoms for atoms in labels if get_energy_weight(atoms) > 0]
    free = {atoms.symbols[0]: atoms.get_potential_energy() for atoms in weighted if is_isolated_atom(atoms)}
    elements = sorted({symbol for atoms in weighted for symbol in atoms.get_chemical_symbols()} - free.keys())
    bound = [atoms for atoms in weighted if not is_isolated_atom(atoms)]
    crystals = [atoms for atoms in bound if atoms.pbc.all()] or bound
    counts = np.array([[np.sum(atoms.symbols == element) for element in elements] for atoms in crystals])
    known = [sum(free.get(symbol, 0.0) for symbol in atoms.symbols) for atoms in crystals]
    energies = np.array([atoms.get_potential_energy() for atoms in crystals]) - known
    sizes = np.array([len(atoms) for atoms in crystals])
    fitted, *_ = np.linalg.lstsq(counts / sizes[:, None], energies / sizes, rcond=None)
    return free | {element: float(value) for element, value in zip(elements, fitted, strict=True)}


def sum_reference_energies(atoms: Atoms, reference_energies: dict[str, float]) -> float:
    """Reference energy of a structure, eV."""
    return sum(reference_energies[symbol] for symbol in atoms.get_chemical_symbols())


def predict_labels(
    basis: BBasisConfiguration, labels: Sequence[Atoms], reference_energies: dict[str, float]
) -> list[Atoms]:
    """Copies of the labels with `predicted_energy` (eV, on the scale of the oracle) and `predicted_forces` (eV/Å)."""
    predictions = []
    for atoms, (energy, forces) in zip(labels, predict(basis, labels), strict=True):
        copy = atoms.copy()
        copy.calc = atoms.calc
        copy.info["predicted_energy"] = energy + sum_reference_energies(atoms, reference_energies)
        copy.arrays["predicted_forces"] = forces
        predictions.append(copy)
    return predictions


def forecast_labels(
    basis: BBasisConfiguration,
    active_set: ActiveSet,
    labels: Sequence[Atoms],
    reference_energies: dict[str, float],
) -> list[Atoms]:
    """As `predict_labels`, with `gamma` of each atom: of labels not trained on yet, they show what gamma is worth."""
    forecasts = predict_labels(basis, labels, reference_energies)
    for atoms, gamma in zip(forecasts, compute_gamma(basis, active_set, labels), strict=True):
        atoms.arrays["gamma"] = gamma
    return forecasts


def compute_rmse(predictions: Sequence[Atoms]) -> dict[str, float | None] | None:
    """RMSE over what counts: energies per atom (eV/atom) with a weight, force components (eV/Å) of core atoms.

    Isolated atoms do not count: their energies are exact. None when there is no structure; its energy is None where no
    structure has an energy weight.
    """
    predictions = [atoms for atoms in predictions if not is_isolated_atom(atoms)]
    if not predictions:
        return None
    energies = [
        (atoms.info["predicted_energy"] - atoms.get_potential_energy()) / len(atoms)
        for atoms in predictions
        if get_energy_weight(atoms) > 0
    ]
    forces = np.concatenate(
        [(atoms.arrays["predicted_forces"] - atoms.get_forces())[get_force_mask(atoms)] for atoms in predictions]
    )
    return {
        "energy": float(np.sqrt(np.mean(np.square(energies)))) if energies else None,
        "force": float(np.sqrt(np.mean(np.square(forces)))),
    }
