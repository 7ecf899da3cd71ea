"""What the dashboard and a generation's figure both draw, read from the generation's files."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from ase import Atoms

from mlip_auto.lammps_output import read_thermo
from mlip_auto.paths import GenerationPaths
from mlip_auto.structures import get_force_mask


def read_gamma_traces(generation: GenerationPaths, walkers: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Largest gamma against MD time by walker: columns `time` (ps) and `gamma`; no entry for a run without output."""
    tables = {name: read_thermo(generation.walker(name).log) for name in walkers}
    return {
        name: table.rename(columns={"Time": "time", "v_gamma_max": "gamma"})[["time", "gamma"]].reset_index(drop=True)
        for name, table in tables.items()
        if not table.empty
    }


def get_panel(walker: str) -> str:
    """The walker that a confirmation (`_c1`, `_c2`, ...) confirms; the walker itself otherwise."""
    return re.sub(r"_c\d+$", "", walker)


def collect_forces(predictions: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and predicted force components (eV/Å) of unmasked atoms, and whether each is held out: three flat arrays."""
    parts = []
    for atoms in predictions:
        mask = get_force_mask(atoms)
        true = atoms.get_forces()[mask].ravel()
        predicted = atoms.arrays["predicted_forces"][mask].ravel()
        parts.append((true, predicted, np.full(true.shape, bool(atoms.info["held_out"]))))
    true, predicted, held_out = (np.concatenate(part) for part in zip(*parts, strict=True))
    return true, predicted, held_out


def thin_by_error(true: np.ndarray, predicted: np.ndarray, n_points: int) -> np.ndarray:
    """Indices of at most `n_points` points that keep the distribution of errors, the largest error included."""
    order = np.argsort(np.abs(predicted - true))
    if len(order) <= n_points:
        return order
    return order[np.linspace(0, len(order) - 1, n_points).round().astype(int)]
