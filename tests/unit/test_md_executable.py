"""A LAMMPS executable: taken only if it computes gamma; its in.lammps; its trajectory against the library's.

A native LAMMPS with ML-PACE is named by MLIP_LMP_PACE, e.g. `MLIP_LMP_PACE="mpirun -np 2 lmp"`.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms

from mlip_auto.check import check_campaign
from mlip_auto.config import ConfigError, parse_config
from mlip_auto.config_lammps import Lammps
from mlip_auto.lammps_executable import make_runner
from mlip_auto.lammps_input import InferenceConfig, write_input
from mlip_auto.lammps_output import read_halt, read_last_frames, read_thermo
from mlip_auto.md import LIBRARY, LammpsFailed, LammpsRunner
from mlip_auto.paths import WalkerPaths

DATA = Path(__file__).parents[1] / "data"
NATIVE = WalkerPaths(DATA / "native_pace")
GOLDEN = WalkerPaths(DATA / "executable_engine")
FILES = NATIVE.directory / "potential.yaml", NATIVE.directory / "potential.asi"
CONDITIONS = InferenceConfig(
    temperature=1200, steps=2000, restart_every=500, seed=4242, min_distances={("Al", "Al"): 1.0}
)
PYPI_LMP = Path(sys.executable).with_name("lmp")
TINY = Path(__file__).parents[1] / "workflow" / "tiny.yaml"


@pytest.fixture
def native() -> tuple[str, ...]:
    command = os.environ.get("MLIP_LMP_PACE")
    if not command:
        pytest.skip("needs a LAMMPS with ML-PACE: name it in MLIP_LMP_PACE")
    return tuple(shlex.split(command))


@pytest.fixture
def start() -> Atoms:
    return ase.io.read(NATIVE.start, format="lammps-data")


def make(folder: Path, files: tuple[Path, Path] = FILES, **settings) -> LammpsRunner:
    return make_runner(Lammps(**settings), ["Al"], 6.0, *files, folder)


def test_the_script_is_the_golden_one(tmp_path, start):
    """What defines the force is, word by word, what a native LAMMPS ran."""
    run = WalkerPaths(tmp_path)
    write_input(run, start, *FILES, CONDITIONS)
    script = run.input.read_text().replace(f"{NATIVE.directory}/", "../native_pace/")
    assert script == GOLDEN.input.read_text()
    assert run.start.read_text() == GOLDEN.start.read_text()

    def words(text: str) -> set[str]:
        return {" ".join(line.replace('"', "").replace("../native_pace/", "").split()) for line in text.splitlines()}

    defining = ("pair_style", "pair_coeff", "fix gamma", "compute gamma_max", "variable gamma_max", "neigh")
    ran = {line for line in words(NATIVE.input.read_text()) if line.startswith(defining)}
    assert len(ran) == 7
    assert {line.replace("neighbor 1.0 bin", "neighbor 1 bin") for line in ran} <= words(script)


def test_a_lammps_without_ml_pace_is_refused(tmp_path):
    """The executable of the PyPI wheel: it starts, and has no such pair style."""
    with pytest.raises(
        LammpsFailed, match=r"lammps.command: .*lmp did not pass .*ML-PACE package.*lammps.engine: library"
    ):
        make(tmp_path, engine="executable", command=str(PYPI_LMP))
    runner = make(tmp_path, engine="auto", command=str(PYPI_LMP))
    assert (runner.engine, runner.command) == ("library", LIBRARY)
    assert "ML-PACE package which is not enabled" in runner.reason
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_not_there_is_refused_before_md(tmp_path):
    with pytest.raises(LammpsFailed, match="found 'srun-x lmp', and there is no program srun-x on this machine; name"):
        make(tmp_path, engine="executable", command="srun-x lmp")
    assert make(tmp_path, engine="auto", command="srun-x lmp").engine == "library"
    content = yaml.safe_load(TINY.read_text())
    for engine, errors in (("executable", 1), ("auto", 0), ("library", 0)):
        content["lammps"] = {"engine": engine, "command": "srun-x lmp"}
        found = check_campaign(parse_config(content), tmp_path).errors
        assert len(found) == errors
        assert all(error.startswith("lammps.command: found 'srun-x lmp'") for error in found)
    for command in ("", "lmp 'x"):
        content["lammps"]["command"] = command
        with pytest.raises(ConfigError, match=r"lammps\.command"):
            parse_config(content)


def test_outcome_says_which_engine_ran_and_why(tmp_path, start):
    """A command with several words that does compute gamma: the library engine, started by its path."""
    command = f"env MLIP_THREADS={{threads}} {shlex.join(LIBRARY)}"
    runner = make(tmp_path, engine="auto", command=command, threads=2)
    assert runner.command == ("env", "MLIP_THREADS=2", *LIBRARY)
    assert runner.threads == 1
    paths = WalkerPaths(tmp_path / "walker")
    conditions = InferenceConfig(temperature=300, steps=10, seed=1)
    engine = runner.run_md(start, *FILES, conditions, paths, tmp_path / "work")["engine"]
    assert engine["name"] == "executable"
    assert engine["version"].startswith("22 Jul 2025")
    assert engine["command"].endswith("mlip_auto.lammps_library")
    assert engine["reason"] == "lammps.engine auto: it passed the test of gamma"


def test_gamma_that_is_always_zero_is_refused(tmp_path):
    zero = tmp_path / "zero.asi"
    with zero.open("wb") as file:
        np.savez(file, Al=np.zeros_like(np.load(FILES[1])["Al"]))
    with pytest.raises(LammpsFailed, match="gamma is not computed"):
        make(tmp_path, (FILES[0], zero), engine="executable", command=shlex.join(LIBRARY))


def run_script(
    folder: Path, start: Atoms, command: tuple[str, ...], *arguments: str, conditions: InferenceConfig = CONDITIONS
) -> WalkerPaths:
    run = WalkerPaths(folder)
    write_input(run, start, *FILES, conditions)
    subprocess.run([*command, "-in", run.input.name, "-log", run.log.name, *arguments], cwd=folder, check=True)
    return run


def test_native_trajectory_is_that_of_the_library(native, tmp_path, start):
    runs = [run_script(tmp_path / name, start, command) for name, command in (("n", native), ("l", LIBRARY))]
    thermos = [read_thermo(run.log) for run in runs]
    assert list(thermos[0].index) == list(thermos[1].index)
    np.testing.assert_allclose(thermos[0].to_numpy(), thermos[1].to_numpy(), rtol=1e-6)
    halts = [read_halt(run.log) for run in runs]
    assert halts[0] is not None and halts[1] is not None and halts[0].step == halts[1].step < CONDITIONS.steps
    frames, others = (read_last_frames(run.dump, 99) for run in runs)
    for frame, other in zip(frames, others, strict=True):
        np.testing.assert_allclose(frame.positions, other.positions, atol=1e-5)
        np.testing.assert_allclose(frame.arrays["gamma"], other.arrays["gamma"], rtol=1e-4)


def test_native_run_goes_on_from_its_restart_file(native, tmp_path, start):
    """From step 100 of 190: restart.a is of step 150, restart.b of step 100."""
    conditions = InferenceConfig(temperature=1200, pressure=0, steps=190, restart_every=50, seed=4242)
    whole = run_script(tmp_path / "whole", start, native, conditions=conditions)
    restart = str((whole.directory / "restart.b").absolute())
    resumed = run_script(tmp_path / "resumed", start, native, "-var", "resume", restart, conditions=conditions)
    thermo, others = read_thermo(whole.log), read_thermo(resumed.log)
    assert list(others.index) == list(range(100, 200, 10))
    np.testing.assert_allclose(thermo.loc[100:].to_numpy(), others.to_numpy(), rtol=1e-6)


def test_native_passes_the_test_of_gamma_and_zero_does_not(native, tmp_path):
    runner = make(tmp_path, engine="executable", command=shlex.join(native))
    assert runner.engine == "executable"
    zero = tmp_path / "zero.asi"
    with zero.open("wb") as file:
        np.savez(file, Al=np.zeros_like(np.load(FILES[1])["Al"]))
    with pytest.raises(LammpsFailed, match=r"it would never halt|gamma is not computed"):
        make(tmp_path, (FILES[0], zero), engine="executable", command=shlex.join(native))
