"""MD that halts by itself: one walker, run by LAMMPS as a process of its own."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip_auto.lammps_input import InferenceConfig, write_input
from mlip_auto.lammps_output import read_error, read_halt, read_last_frames, read_thermo
from mlip_auto.paths import WalkerPaths
from mlip_auto.processes import die_with_parent
from mlip_auto.structures import write_atomically, write_json


class LammpsFailed(RuntimeError):
    """The program itself failed: it did not start, had no first step, or was killed from outside."""


@dataclass(frozen=True)
class LammpsRunner:
    """Runs MD in a LAMMPS program.

    Parameters
    ----------
    command : tuple of str
        The program and its first arguments; it takes `-in` and `-log` as `lmp` does.
    threads : int
        OpenMP threads of the program.
    """

    command: tuple[str, ...] = (sys.executable, "-m", "mlip_auto.lammps_library")
    threads: int = 1

    def run_md(
        self,
        atoms: Atoms,
        potential: Path,
        active_set: Path,
        inference: InferenceConfig,
        paths: WalkerPaths,
        scratch: Path,
    ) -> dict[str, Any]:
        """Run one walker until its last step, its halt or its crash; write its files, `outcome.json` last.

        Parameters
        ----------
        atoms : Atoms
            Start structure; velocities are drawn from `inference.seed`.
        potential, active_set : Path
            B-basis potential (.yaml) and its inverse active set (.asi).
        paths : WalkerPaths
            Where the finished files go; an outcome of an earlier attempt is removed first.
        scratch : Path
            Folder of the run, emptied first and removed at the end.

        Returns
        -------
        dict
            `outcome` (completed, halted, crashed), `step` (last one known), `steps` (asked for), `time_ps`,
            `gamma_max` (over the run), `atom` (0-based index of the largest gamma in the last frame),
            `temperature` (K), `pressure` (bar), `seed`, `reason`, `walker`, `seconds`. `gamma_max` and `atom`
            are None when no gamma was ever written.

        Raises
        ------
        LammpsFailed
            No step was computed (a missing potential, a broken installation, a start structure without finite forces),
            or the program was killed by a signal from outside. What it wrote stays in `scratch`.
        """
        paths.outcome.unlink(missing_ok=True)
        if scratch.exists():
            shutil.rmtree(scratch)
        run = WalkerPaths(scratch)
        write_input(run, atoms, potential, active_set, inference)
        started = time.monotonic()
        failure = self._run_lammps(run)
        if failure is not None and not (run.log.exists() and len(read_thermo(run.log))):
            raise LammpsFailed(f"{failure}; no step was computed: read {run.log}")
        outcome = describe_outcome(run, inference, failure)
        outcome |= {"walker": paths.directory.name, "seconds": time.monotonic() - started}
        for source, target in (
            (run.input, paths.input),
            (run.start, paths.start),
            (run.log, paths.log),
            (run.dump, paths.dump),
        ):
            source.touch()  # a run that crashed at once may have no dump yet
            with write_atomically(target) as aside:
                shutil.move(source, aside)
        shutil.rmtree(scratch)
        write_json(paths.outcome, outcome)
        return outcome

    def _run_lammps(self, run: WalkerPaths) -> str | None:
        """Run the program in the folder of `run`; why it failed, or None."""
        errors = run.directory / "stderr"
        with errors.open("w") as stderr:
            process = subprocess.run(
                [*self.command, "-in", run.input.name, "-log", run.log.name],
                cwd=run.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads)},
                preexec_fn=partial(die_with_parent, os.getpid()),
                check=False,
            )
        if process.returncode == 0:
            return None
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            if name != "SIGSEGV":  # which MD that has blown up can cause; others come from outside
                raise LammpsFailed(f"LAMMPS was killed by {name}")
            return f"LAMMPS was killed by {name}"
        lines = errors.read_text().strip().splitlines()
        if run.log.exists() and (error := read_error(run.log)):
            return error
        return lines[-1] if lines else f"LAMMPS ended with exit code {process.returncode} and said nothing"


def describe_outcome(run: WalkerPaths, inference: InferenceConfig, failure: str | None) -> dict[str, Any]:
    """What became of a run, from its log and dump; keys as in `LammpsRunner.run_md`, but `walker` and `seconds`.

    Completed means that the last step is the one asked for, whatever else the log says.
    """
    halt = None
    step, time_ps, gamma_max = 0, 0.0, None
    if run.log.exists():
        halt = read_halt(run.log)
        thermo = read_thermo(run.log)
        if len(thermo):
            step, time_ps = int(thermo.index[-1]), float(thermo["Time"].iloc[-1])
            largest = float(thermo["v_gamma_max"].max())
            gamma_max = largest if math.isfinite(largest) else None
    frames = read_last_frames(run.dump) if run.dump.exists() else []
    atom = int(frames[-1].arrays["gamma"].argmax()) if frames else None
    if failure is not None:
        outcome, reason = "crashed", failure
    elif halt is not None:
        outcome = "halted"
        reason = f"gamma {halt.gamma:.4g} of atom {atom} above {inference.uncertainty_threshold:g} at step {halt.step}"
    elif step == inference.steps:
        outcome, reason = "completed", f"all {step} steps below gamma {inference.uncertainty_threshold:g}"
    else:
        outcome, reason = "crashed", f"LAMMPS ended at step {step} of {inference.steps} without saying why"
    return {
        "outcome": outcome,
        "step": step,
        "steps": inference.steps,
        "time_ps": time_ps,
        "gamma_max": gamma_max,
        "atom": atom,
        "temperature": inference.temperature,
        "pressure": inference.pressure,
        "seed": inference.seed,
        "reason": reason,
    }
