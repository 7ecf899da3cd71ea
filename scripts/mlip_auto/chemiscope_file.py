"""The training set as a chemiscope file: a map of its structures, each a click away in 3D (https://chemiscope.org)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from pyace.basis import BBasisConfiguration
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from mlip_auto.ace import compute_core_projections
from mlip_auto.structures import get_force_mask


def write_chemiscope(path: Path, predictions: Sequence[Atoms], basis: BBasisConfiguration, name: str) -> None:
    """Write `path` (.json.gz) for labels with `predicted_energy` and `predicted_forces`.

    Properties of a structure: the two largest principal components of its descriptor, energy by oracle and potential,
    error of energy and of the forces on core atoms, largest force, gamma when it was selected, where it comes from.
    """
    import chemiscope  # it brings IPython along

    energies = np.array([atoms.get_potential_energy() / len(atoms) for atoms in predictions])
    predicted = np.array([atoms.info["predicted_energy"] / len(atoms) for atoms in predictions])
    errors = [(atoms.arrays["predicted_forces"] - atoms.get_forces())[get_force_mask(atoms)] for atoms in predictions]
    forces = [np.linalg.norm(atoms.get_forces(), axis=1).max() for atoms in predictions]
    components = reduce_descriptors(basis, predictions)
    properties: dict[str, Any] = {
        "PC 1": _describe(components[:, 0], "", "first principal component of the mean ACE projections of core atoms"),
        "PC 2": _describe(components[:, 1], "", "second principal component"),
        "energy": _describe(energies, "eV/atom", "by the oracle"),
        "predicted energy": _describe(predicted, "eV/atom", "by the potential"),
        "energy error": _describe(1000 * (predicted - energies), "meV/atom", "potential less oracle"),
        "force error": _describe([1000 * np.sqrt(np.mean(e**2)) for e in errors], "meV/Å", "RMSE over core atoms"),
        "largest force": _describe(forces, "eV/Å", "by the oracle"),
        "gamma": _describe(
            [atoms.info.get("gamma", 0.0) for atoms in predictions], "", "when selected; 0: generation 0"
        ),
        "generation": _describe([atoms.info["generation"] for atoms in predictions], "", "in which it was labelled"),
        "type": _describe([str(atoms.info["config_type"]) for atoms in predictions], "", "initial or cut from MD"),
        "held out": _describe([str(atoms.info["held_out"]) for atoms in predictions], "", "not trained on"),
    }
    chemiscope.write_input(
        str(path),
        structures=[Atoms(a.numbers, positions=a.positions, cell=a.cell, pbc=a.pbc) for a in predictions],
        properties=properties,
        metadata={"name": name, "description": "Training set of an ACE potential, made by mlip-auto."},
        settings={
            "map": {
                "x": {"property": "PC 1"},
                "y": {"property": "PC 2"},
                "color": {"property": "force error"},
                "symbol": "type",
            },
            "structure": [{"unitCell": True}],
        },
    )


def reduce_descriptors(basis: BBasisConfiguration, structures: Sequence[Atoms]) -> np.ndarray:
    """Two principal components (dtype=float, shape=(n, 2)) of the standardised mean projections of the core atoms.

    The means of each element stand side by side; zero where a structure lacks the element.
    """
    projections, owners = compute_core_projections(basis, structures)
    means = []
    for species, rows in projections.items():
        sums = np.zeros((len(structures), rows.shape[1]))
        np.add.at(sums, owners[species], rows)
        means.append(sums / np.maximum(np.bincount(owners[species], minlength=len(structures)), 1)[:, None])
    descriptors = StandardScaler().fit_transform(np.hstack(means))
    return PCA(n_components=2, random_state=0).fit_transform(descriptors)


def _describe(values: Any, units: str, description: str) -> dict[str, Any]:
    found = {"target": "structure", "values": values, "description": description}
    return found | ({"units": units} if units else {})
