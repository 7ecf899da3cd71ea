"""What the dashboard and a generation's figure draw, read from the generations' files."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from ase import Atoms

from mlip_auto.lammps_output import read_thermo
from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.structures import get_energy_weight, get_force_mask
from mlip_auto.summary import read_records

THERMO = {"Time": "time", "v_gamma_max": "gamma", "Temp": "temperature", "Press": "pressure"}


def read_traces(generation: GenerationPaths, walkers: Iterable[str]) -> dict[str, pd.DataFrame]:
    """MD by walker: columns `time` (ps), `gamma` (largest), `temperature` (K), `pressure` (bar).

    No entry for a run without output.
    """
    tables = {name: read_thermo(generation.walker(name).log) for name in walkers}
    return {
        name: table.rename(columns=THERMO)[list(THERMO.values())].reset_index(drop=True)
        for name, table in tables.items()
        if not table.empty
    }


def find_clean_time(trace: pd.DataFrame, threshold: float) -> float:
    """Picoseconds that a run went on with gamma at or below the threshold."""
    above = ~(trace["gamma"] <= threshold).to_numpy()  # NaN, of a run that blew up, is not clean either
    clean = trace["time"].iloc[: above.argmax()] if above.any() else trace["time"]
    return float(clean.max()) if len(clean) else 0.0


def get_panel(walker: str) -> str:
    """The walker that a confirmation (`_c1`, `_c2`, ...) confirms; the walker itself otherwise."""
    return re.sub(r"_c\d+$", "", walker)


def tabulate_forces(predictions: Sequence[Atoms]) -> pd.DataFrame:
    """A row for each force component: `true`, `predicted` (eV/Å), `counts` (unmasked), `held_out`, `config_type`."""
    parts = [
        pd.DataFrame(
            {
                "true": atoms.get_forces().ravel(),
                "predicted": atoms.arrays["predicted_forces"].ravel(),
                "counts": np.repeat(get_force_mask(atoms), 3),
                "held_out": bool(atoms.info["held_out"]),
                "config_type": atoms.info["config_type"],
            }
        )
        for atoms in predictions
    ]
    return pd.concat(parts, ignore_index=True)


def tabulate_energies(predictions: Sequence[Atoms]) -> pd.DataFrame:
    """A row for each structure whose energy counts; columns as in `tabulate_forces`, energies in eV/atom."""
    rows = [
        {
            "true": atoms.get_potential_energy() / len(atoms),
            "predicted": atoms.info["predicted_energy"] / len(atoms),
            "counts": True,
            "held_out": bool(atoms.info["held_out"]),
            "config_type": atoms.info["config_type"],
        }
        for atoms in predictions
        if get_energy_weight(atoms) > 0
    ]
    return pd.DataFrame(rows, columns=["true", "predicted", "counts", "held_out", "config_type"])


def tabulate_forecasts(forecasts: Mapping[int, Sequence[Atoms]]) -> pd.DataFrame:
    """A row for each unmasked atom of new labels: `gamma` and `error` (|ΔF|, eV/Å) by the potential before them,
    `label` (structure id), `walker` (of the cut) and `generation`.

    Parameters
    ----------
    forecasts
        By generation: labels with the arrays `gamma` and `predicted_forces`.
    """
    parts = []
    for generation, structures in forecasts.items():
        for atoms in structures:
            mask = get_force_mask(atoms)
            errors = np.linalg.norm(atoms.get_forces() - atoms.arrays["predicted_forces"], axis=1)
            part = pd.DataFrame({"gamma": atoms.arrays["gamma"][mask], "error": errors[mask]})
            walker = get_panel(atoms.info.get("walker", ""))  # a pending structure of generation 0 has none
            parts.append(part.assign(label=atoms.info["structure_id"], walker=walker, generation=generation))
    columns = ["gamma", "error", "label", "walker", "generation"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def tabulate_labels(paths: CampaignPaths, generations: Iterable[int]) -> pd.DataFrame:
    """A row for each record of a label job: the keys of `labelling.Record`, `structure_id` and `generation`."""
    rows = [
        {"generation": number, "structure_id": identifier, "rungs": [], **record}
        for number in generations
        for identifier, record in read_records(paths.generation(number)).items()
    ]
    columns = ["generation", "structure_id", "status", "reason", "seconds", "cores", "from_store", "n_atoms", "rungs"]
    return pd.DataFrame(rows, columns=columns)


def thin_by_error(true: np.ndarray, predicted: np.ndarray, n_points: int) -> np.ndarray:
    """Indices of at most `n_points` points that keep the distribution of errors, the largest error included."""
    order = np.argsort(np.abs(predicted - true))
    if len(order) <= n_points:
        return order
    return order[np.linspace(0, len(order) - 1, n_points).round().astype(int)]
