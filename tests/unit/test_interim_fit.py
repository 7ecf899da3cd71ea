"""A fit that is ended by force goes on from its interim potential; a fit of something else does not."""

import pickle
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from pyace.basis import BBasisConfiguration

from mlip_auto.ace import build_basis
from mlip_auto.config import Training
from mlip_auto.fitting import build_data_frame, fit_pacemaker
from mlip_auto.interim_fit import FIT, INTERIM, STEPS, identify_fit, keep_interim, read_interim
from mlip_auto.training import build_training_set

FIT_LONG = """
import pickle, sys
from pathlib import Path
from mlip_auto.ace import build_basis
from mlip_auto.fitting import fit_pacemaker
folder = Path(sys.argv[1])
frame, settings = pickle.loads((folder / "fit.pickle").read_bytes())
fit_pacemaker(build_basis(settings.basis, ["Al"]), frame, settings, seed=1, directory=folder)
"""


@pytest.fixture
def frame(al_labels, small_basis):
    return build_data_frame(build_training_set([al_labels], held_out_fraction=0.0), small_basis.cutoff)


def test_an_interim_potential_belongs_to_one_fit(frame, small_basis, tmp_path, monkeypatch):
    settings = Training(basis=small_basis)
    fit = identify_fit(frame, settings, seed=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FIT, fit)
    monkeypatch.setenv(STEPS, "7")
    potential = build_basis(small_basis, ["Al"])
    keep_interim(potential, 2, current_fit_cycle=0, current_ladder_step=0)

    interim, steps = read_interim(tmp_path, fit)
    assert steps == 10
    assert list(interim.get_all_coeffs()) == list(potential.get_all_coeffs())
    assert identify_fit(frame, settings.model_copy(update={"maxiter": 9}), seed=1) == fit
    heavier = frame.assign(w_forces=[2.0 * weights for weights in frame["w_forces"]])
    others = [(frame[1:], settings, 1), (heavier, settings, 1), (frame, settings, 2)]
    others.append((frame, settings.model_copy(update={"kappa": 0.9}), 1))
    for other in others:
        assert read_interim(tmp_path, identify_fit(*other)) is None


@pytest.mark.slow
def test_a_killed_fit_goes_on_from_where_it_was(frame, small_basis, tmp_path):
    settings = Training(basis=small_basis, maxiter=100_000)
    (tmp_path / "fit.pickle").write_bytes(pickle.dumps((frame, settings)))
    fit = subprocess.Popen([sys.executable, "-c", FIT_LONG, tmp_path])
    while not (tmp_path / INTERIM).exists():
        assert fit.poll() is None
        time.sleep(0.05)
    children = psutil.Process(fit.pid).children(recursive=True)
    fit.kill()
    fit.wait()
    assert psutil.wait_procs(children, timeout=60)[1] == []  # pacemaker dies with it

    interim, steps = read_interim(tmp_path, identify_fit(frame, settings, seed=1))
    settings = settings.model_copy(update={"maxiter": steps + 2})
    fit_pacemaker(build_basis(small_basis, ["Al"]), frame, settings, seed=1, directory=tmp_path)
    start = BBasisConfiguration(str(tmp_path / "start.yaml"))
    assert list(start.get_all_coeffs()) == list(interim.get_all_coeffs())
    assert yaml.safe_load((tmp_path / "input.yaml").read_text())["fit"]["maxiter"] == 2
