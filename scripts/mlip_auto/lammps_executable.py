"""Which LAMMPS runs MD: an executable with ML-PACE that proves that it computes gamma, or the library."""

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from ase import Atoms
from ase.build import bulk

from mlip_auto.config_conditions import Stage
from mlip_auto.config_lammps import Lammps
from mlip_auto.lammps_input import InferenceConfig
from mlip_auto.md import LammpsFailed, LammpsRunner
from mlip_auto.paths import WalkerPaths

CURE = "name a LAMMPS with the package ML-PACE, or set lammps.engine: library"
TEST_MINUTES = 5.0  # for a launcher that waits for ever


def make_runner(
    settings: Lammps,
    elements: Sequence[str],
    cutoff: float,
    potential: Path,
    active_set: Path,
    directory: Path,
    max_minutes: float | None = None,
) -> LammpsRunner:
    """The engine that `settings` ask for; an executable is tried with the potential first.

    Parameters
    ----------
    cutoff
        Radial cutoff of the potential in Å.
    directory
        Where the files of the trial go for a moment; all nodes of an MPI job must see it.

    Raises
    ------
    LammpsFailed
        `lammps.engine: executable`, and the executable cannot be used: the message says why.
    """
    if settings.engine == "library":
        return LammpsRunner(max_minutes=max_minutes)
    runner = LammpsRunner(
        command=split_command(settings),
        threads=1 if "{threads}" in settings.command else settings.threads,
        engine="executable",
        reason=f"lammps.engine {settings.engine}: it passed the test of gamma",
        max_minutes=max_minutes,
    )
    fault = find_command_fault(settings) or find_gamma_fault(runner, elements, cutoff, potential, active_set, directory)
    if fault is None:
        return runner
    if settings.engine == "executable":
        raise LammpsFailed(f"lammps.command: {fault}; {CURE}")
    return LammpsRunner(max_minutes=max_minutes, reason=f"lammps.engine auto: {fault}")


def split_command(settings: Lammps) -> tuple[str, ...]:
    """`lammps.command` as words, its `{threads}` replaced."""
    return tuple(shlex.split(settings.command.replace("{threads}", str(settings.threads))))


def find_command_fault(settings: Lammps) -> str | None:
    """Why `lammps.command` cannot be started here; None where its first word is a program."""
    program = split_command(settings)[0]
    if shutil.which(program) is not None:
        return None
    return f"found {settings.command!r}, and there is no program {program} on this machine"


def find_gamma_fault(
    runner: LammpsRunner, elements: Sequence[str], cutoff: float, potential: Path, active_set: Path, directory: Path
) -> str | None:
    """Why an executable must not run MD, from a run of some 30 atoms with the potential; None where gamma is not zero.

    LAMMPS builds exist whose gamma is always 0: MD would never halt, and every potential look converged.
    """
    atoms = make_test_crystal(elements, cutoff)
    stage = Stage(temperature=(1, 1), steps=1)
    inference = InferenceConfig(stages=(stage,), gamma_every=1, uncertainty_threshold=1e300, seed=1)
    tester = LammpsRunner(runner.command, runner.threads, runner.engine, max_minutes=TEST_MINUTES)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".lammps_test_", dir=directory) as folder:
        paths, scratch = WalkerPaths(Path(folder) / "done"), Path(folder) / "running"
        command = " ".join(runner.command)
        try:
            outcome = tester.run_md(atoms, potential, active_set, inference, paths, scratch)
        except LammpsFailed as error:
            return f"{command} did not pass the test run with gamma: {str(error).split('; no step')[0]}"
        if not outcome["gamma_max"]:
            return f"{command} computed gamma {outcome['gamma_max']} for all atoms in a test run: it would never halt"
    return None


def make_test_crystal(elements: Sequence[str], cutoff: float) -> Atoms:
    """32 atoms in an fcc crystal with all elements, their nearest neighbours at 0.6 of the cutoff (Å)."""
    atoms = bulk("Al", "fcc", a=cutoff / 1.2, cubic=True) * (2, 2, 2)
    atoms.symbols = [*islice(cycle(elements), len(atoms))]
    return atoms
