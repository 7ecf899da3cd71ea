"""Shared by the tests: EMT labels of aluminium, Quantum ESPRESSO where it is installed, tables printed at the end."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from example_structures import label_with_emt
from mlip_auto.ace import build_basis, compute_active_set, save_active_set
from mlip_auto.config import AceBasis, Training
from mlip_auto.fitted_potential import FittedPotential
from mlip_auto.fitting import build_data_frame, fit_linear
from mlip_auto.md import LammpsRunner
from mlip_auto.training import build_training_set
from tables import print_tables


def pytest_terminal_summary(terminalreporter, config):
    print_tables(config, terminalreporter)


@pytest.fixture(scope="session", autouse=True)
def config_home(tmp_path_factory):
    """Where `mlip-auto init` links the profiles: not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config_home")))
        yield


@pytest.fixture(scope="session")
def small_basis() -> AceBasis:
    return AceBasis(
        cutoff=4.5, number_of_functions_per_element=15, nradmax_by_orders=[5, 3, 2], lmax_by_orders=[0, 2, 1]
    )


def make_al_labels() -> list[Atoms]:
    rng = np.random.default_rng(7)
    labels = []
    for _ in range(8):
        atoms = bulk("Al", cubic=True, a=4.05) * (2, 2, 2)
        strain = rng.uniform(-0.03, 0.03, (3, 3))
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        labels.append(label_with_emt(atoms))
    return labels


@pytest.fixture
def al_labels() -> list[Atoms]:
    """Eight rattled, strained cells of 32 Al atoms."""
    return make_al_labels()


@pytest.fixture(scope="session")
def al_potential(small_basis, tmp_path_factory) -> FittedPotential:
    """Linear fit of those labels, with its active set."""
    folder = tmp_path_factory.mktemp("al_potential")
    data = build_training_set([make_al_labels()], held_out_fraction=0.0)
    frame = build_data_frame(data, small_basis.cutoff)
    basis = fit_linear(build_basis(small_basis, ["Al"]), frame, Training(basis=small_basis))
    basis.save(str(folder / "potential.yaml"))
    save_active_set(compute_active_set(basis, data.train), ["Al"], folder / "potential.asi")
    return FittedPotential(folder / "potential.yaml", folder / "potential.asi")


@pytest.fixture(scope="session")
def pw_x() -> Path:
    """Folder of Debian's pseudopotentials, for tests that run pw.x; under CI it must be there."""
    folder = Path("/usr/share/espresso/pseudo")
    if shutil.which("pw.x") is None or not (folder / "Al.pz-vbc.UPF").exists():
        missing = "needs pw.x and its pseudopotentials: apt-get install quantum-espresso quantum-espresso-data"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return folder


@pytest.fixture(scope="session")
def icet() -> None:
    """For tests that make quasirandom structures; under CI icet must be there."""
    if find_spec("icet") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs icet: make sqs")


@pytest.fixture
def engine_that_fails(tmp_path) -> Callable[..., LammpsRunner]:
    """Makes a library engine with `failure` in place of its `evaluation`-th evaluation: number n is step n - 2."""

    def make(failure: str, evaluation: int, **settings) -> LammpsRunner:
        program = tmp_path / "engine.py"
        program.write_text(
            "import os, signal, time\n"
            "from mlip_auto import lammps_library as engine\n"
            "evaluate, calls = engine.AceEvaluators.evaluate, []\n"
            "def fail_later(self, with_gamma):\n"
            "    calls.append(with_gamma)\n"
            f"    if len(calls) == {evaluation}:\n"
            f"        {failure}\n"
            "    return evaluate(self, with_gamma)\n"
            "engine.AceEvaluators.evaluate = fail_later\n"
            "engine.main()\n"
        )
        return LammpsRunner(command=(sys.executable, str(program)), **settings)

    return make
