"""The fit itself: python-ace's linear solver, and pacemaker started from it."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from ase import Atoms
from pyace.basis import BBasisConfiguration
from pyace.linearacefit import LinearACEDataset
from sklearn.linear_model import Ridge

from mlip_auto.ace import make_periodic
from mlip_auto.config import Training
from mlip_auto.interim_fit import CALLBACK, FIT, STEPS, identify_fit, read_interim
from mlip_auto.processes import die_with_parent
from mlip_auto.structures import get_energy_weight, get_force_mask, is_isolated_atom
from mlip_auto.training import TrainingSet, sum_reference_energies


class FitFailed(RuntimeError):
    """The fit ended without a potential; the message names its log."""


def build_data_frame(data: TrainingSet, cutoff: float) -> pd.DataFrame:
    """pacemaker's data frame of the training part without isolated atoms, weights included.

    `w_energy` is a number a structure, `w_forces` one an atom: 0 for buffer atoms. pacemaker uses columns that are
    there as they are; its own policies join on an index or drop structures by energy.
    """
    rows = []
    for atoms in data.train:
        if is_isolated_atom(atoms):
            continue
        mask = get_force_mask(atoms).astype(float)
        rows.append(
            {
                "ase_atoms": _strip(atoms, cutoff),
                "energy_corrected": atoms.get_potential_energy()
                - sum_reference_energies(atoms, data.reference_energies),
                "forces": atoms.get_forces(),
                "w_energy": get_energy_weight(atoms),
                "w_forces": mask,
                "name": atoms.info["structure_id"],
            }
        )
    return pd.DataFrame(rows)


def fit_linear(
    basis: BBasisConfiguration, frame: pd.DataFrame, settings: Training, threads: int = 1
) -> BBasisConfiguration:
    """Ridge regression of all coefficients on energies per atom and core forces (design matrix of python-ace).

    Rows of weight zero are left out of the regression, so that no value in them matters.

    Returns
    -------
    The basis with its coefficients.
    """
    dataset = LinearACEDataset(basis, frame.copy())
    design = dataset.get_design_matrix(max_workers=threads)
    energy_weights = settings.energy_weight**2 * frame["w_energy"].to_numpy()
    weights = np.concatenate([energy_weights, np.repeat(np.concatenate(frame["w_forces"].to_list()), 3)])
    counted = weights > 0
    model = Ridge(alpha=settings.ridge, fit_intercept=False, solver="svd")
    model.fit(design[counted], dataset.get_target_vector()[counted], sample_weight=weights[counted])
    return dataset.get_bbasis(model).to_BBasisConfiguration()


def fit_pacemaker(
    start: BBasisConfiguration,
    frame: pd.DataFrame,
    settings: Training,
    seed: int,
    directory: Path,
    threads: int = 1,
) -> BBasisConfiguration:
    """Run the `pacemaker` CLI with its tensorpot backend in `directory`, from the potential `start`.

    Where an earlier attempt at the same fit was ended by force, it goes on from its interim potential.

    Raises
    ------
    FitFailed
        When pacemaker fails, writes no potential, or fitted another number of structures than it was given.
    """
    directory.mkdir(parents=True, exist_ok=True)
    output = directory / "output_potential.yaml"
    output.unlink(missing_ok=True)
    fit_id = identify_fit(frame, settings, seed)
    start, steps = read_interim(directory, fit_id) or (start, 0)
    start.save(str(directory / "start.yaml"))
    frame.to_pickle(directory / "dataset.pckl.gzip", compression="gzip", protocol=4)
    fit: dict[str, object] = {
        "optimizer": "BFGS",
        "maxiter": max(1, settings.maxiter - steps),
        "loss": {"kappa": settings.kappa, "L1_coeffs": 1e-8, "L2_coeffs": 1e-8},
        "trainable_parameters": settings.trainable_parameters,
        "callbacks": [CALLBACK],
    }
    content = {
        "seed": seed,
        # pacemaker goes into ladder mode and fits nothing when the start is given on its command line
        "potential": "start.yaml",
        "data": {"filename": "dataset.pckl.gzip"},
        "fit": fit,
        "backend": {"evaluator": "tensorpot", "batch_size": settings.batch_size, "display_step": 50},
    }
    (directory / "input.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    log = directory / "log.txt"
    log.unlink(missing_ok=True)  # pacemaker appends, and the check below must read this run only
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        FIT: fit_id,
        STEPS: str(steps),
    }
    with (directory / "pacemaker.out").open("w") as console:
        code = subprocess.run(
            [sys.executable, "-m", "mlip_auto.interim_fit", "--no-predict", "input.yaml"],
            cwd=directory,
            env=environment,
            stdout=console,
            stderr=subprocess.STDOUT,
            preexec_fn=partial(die_with_parent, os.getpid()),
        ).returncode
    if code != 0 or not output.exists():
        raise FitFailed(f"pacemaker ended with exit code {code} and wrote no potential: read {directory}/pacemaker.out")
    fitted_rows = len(pd.read_pickle(directory / "fitting_data_info.pckl.gzip", compression="gzip"))
    if fitted_rows != len(frame):
        raise FitFailed(f"pacemaker was given {len(frame)} structures and fitted {fitted_rows}: read {log}")
    return BBasisConfiguration(str(output))


def _strip(atoms: Atoms, cutoff: float) -> Atoms:
    """Positions, cell and species alone, in a cell that python-ace can read."""
    return make_periodic(Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc), cutoff)


def holds_linear_fit(basis: BBasisConfiguration) -> bool:
    """True when the energy is linear in all function coefficients: one density with prefactor and power 1."""
    return all(
        block.ndensityi == 1 and list(block.fs_parameters) == [1.0, 1.0]
        for block in basis.funcspecs_blocks
        if block.number_of_species == 1
    )
