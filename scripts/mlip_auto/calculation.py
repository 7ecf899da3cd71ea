"""One calculation of one structure: run the oracle in its folder, and check what it says."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip_auto.config_dft import Dft
from mlip_auto.guarded import Died, OutOfMemory, OutOfTime, call_in_child
from mlip_auto.label_checks import find_fault
from mlip_auto.oracles import get_code_version, make_calculator
from mlip_auto.scf_failures import Failure, Reason, RefusedStructure, RunReport, recognise


@dataclass(frozen=True)
class Result:
    """Energy (eV), forces (eV/Å, n_atoms x 3), stress (eV/Å³, Voigt; None where the code gave none), code's version."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None
    code_version: str


@dataclass(frozen=True)
class Calculation:
    """What one run of the oracle gave, and the SCF steps it took where the code's output tells."""

    outcome: Result | Failure
    scf_steps: int | None = None


def calculate(atoms: Atoms, dft: Dft, folder: Path, seconds: float | None = None) -> Calculation:
    """Run the oracle on a bare copy of `atoms` in a process of its own that works in `folder`.

    Parameters
    ----------
    seconds
        Time limit; `dft.max_memory_gb` is the limit of memory.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        return Calculation(Failure(recognise(str(error)), str(error)))
    try:
        return call_in_child(_calculate, atoms, dft, folder, seconds=seconds, memory_gb=dft.max_memory_gb)
    except OutOfTime as error:
        failure = Failure(Reason.OUT_OF_TIME, str(error))
    except OutOfMemory as error:
        failure = Failure(Reason.OUT_OF_MEMORY, f"{error} (dft.max_memory_gb)")
    except Died as error:
        failure = Failure(Reason.KILLED, f"{dft.code} {error}")
    return Calculation(failure, inspect_run(atoms, dft, folder).scf_steps)


def _calculate(atoms: Atoms, dft: Dft, folder: Path) -> Calculation:
    """In the child: every failure is an answer, with its reason."""
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    try:
        calculator = make_calculator(dft, bare)  # before the change of folder: paths of the config start where we are
        with contextlib.chdir(folder):
            bare.calc = calculator
            energy, forces = float(bare.get_potential_energy()), np.array(bare.get_forces())
            stress = np.array(bare.get_stress()) if "stress" in getattr(calculator, "results", {}) else None
    except Exception as error:  # a calculator may raise anything; whatever it is, it is this structure's reason
        return Calculation(_explain(error, atoms, dft, folder), inspect_run(atoms, dft, folder).scf_steps)
    report = inspect_run(atoms, dft, folder)
    fault = report.fault or find_fault(energy, forces, len(atoms), dft)
    return Calculation(fault or Result(energy, forces, stress, report.code_version), report.scf_steps)


def inspect_run(atoms: Atoms, dft: Dft, folder: Path) -> RunReport:
    """What the code's own output says; for codes whose output is not read here, their version alone."""
    if dft.code == "espresso":
        from mlip_auto.espresso_output import inspect_pw_run

        return inspect_pw_run(atoms, dft, folder)
    return RunReport(get_code_version(dft))


def _explain(error: Exception, atoms: Atoms, dft: Dft, folder: Path) -> Failure:
    """The reason behind an exception: what the code's output says of it, else the exception itself."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, RefusedStructure):
        return Failure(Reason.REFUSED, str(error))
    fault = inspect_run(atoms, dft, folder).fault
    if fault is not None and (fault.reason is not Reason.TRUNCATED or recognise(said) is Reason.OTHER):
        return fault
    return Failure(recognise(said), said)
