"""The interim potential of a fit by pacemaker: what the next attempt goes on from when this one is ended by force.

pacemaker writes one too, but not in one step, and it does not say which fit it belongs to and how far that had come.
`python -m mlip_auto.interim_fit ...` is the `pacemaker` CLI, with `keep_interim` where a callback can name it.
"""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from pyace.basis import BBasisConfiguration

from mlip_auto.config import Training
from mlip_auto.structures import write_atomically

CALLBACK = "mlip_auto.interim_fit.keep_interim"
INTERIM = "interim.yaml"
FIT, STEPS = "MLIP_AUTO_FIT", "MLIP_AUTO_FIT_STEPS"  # for the callback, in the environment; in the metadata of the file


def identify_fit(frame: pd.DataFrame, settings: Training, seed: int) -> str:
    """sha256 over what decides a fit: the training set with its weights, the settings but for the number of steps."""
    digest = hashlib.sha256(settings.model_dump_json(exclude={"maxiter"}).encode() + str(seed).encode())
    for column in sorted({*frame.columns} - {"ase_atoms", "name"}):
        for values in frame[column]:
            digest.update(np.asarray(values, dtype="<f8").tobytes())
    digest.update(" ".join(frame["name"]).encode())
    return digest.hexdigest()


def keep_interim(basis_config: BBasisConfiguration, current_fit_iteration: int, **_: int) -> None:
    """Called by pacemaker after each step of the optimiser: the potential as it is then, in the working folder."""
    copy = basis_config.copy()
    copy.metadata[FIT] = os.environ[FIT]
    copy.metadata[STEPS] = str(int(os.environ[STEPS]) + current_fit_iteration + 1)
    with write_atomically(Path(INTERIM)) as aside:
        copy.save(str(aside))


def read_interim(directory: Path, fit: str) -> tuple[BBasisConfiguration, int] | None:
    """The interim potential of this very fit and the steps that led to it; None where there is none."""
    file = directory / INTERIM
    if not file.exists():
        return None
    basis = BBasisConfiguration(str(file))
    return (basis, int(basis.metadata[STEPS])) if basis.metadata[FIT] == fit else None


if __name__ == "__main__":
    import pyace.cli.pacemaker

    import mlip_auto.interim_fit  # noqa: F401  pacemaker finds the callback only in a module that is imported

    sys.exit(pyace.cli.pacemaker.main())
