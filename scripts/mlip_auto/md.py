"""MD that halts by itself: one walker, run by LAMMPS as a process of its own."""

import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from mlip_auto.lammps_input import InferenceConfig
from mlip_auto.lammps_output import (
    append_latest_frames,
    read_error,
    read_halt,
    read_last_frames,
    read_thermo,
    read_version,
)
from mlip_auto.lammps_restart import begin_attempt, find_safe_restart, join_attempts, list_restarts
from mlip_auto.paths import WalkerPaths
from mlip_auto.processes import die_with_parent
from mlip_auto.structures import write_atomically, write_json

LIBRARY = (sys.executable, "-m", "mlip_auto.lammps_library")
ERRORS = "stderr"
TERMINATION_GRACE = 5.0  # s that a launcher has to end its processes


class LammpsFailed(RuntimeError):
    """The program itself failed: it did not start, had no first step, or was killed from outside."""


@dataclass(frozen=True)
class LammpsRunner:
    """Runs MD in a LAMMPS program.

    Parameters
    ----------
    command : tuple of str
        The program and its first arguments; it takes `-in`, `-log` and `-var` as `lmp` does.
    threads : int
        OpenMP threads of the program (of each process, under a launcher).
    engine, reason : str
        `library` or `executable`, and why it is that: for outcome.json.
    max_minutes : float, optional
        Wall-clock limit of one call of `run_md`; the next call goes on from the last restart file.
    """

    command: tuple[str, ...] = LIBRARY
    threads: int = 1
    engine: str = "library"
    reason: str = "asked for"
    max_minutes: float | None = None

    def run_md(
        self,
        atoms: Atoms,
        potential: Path,
        active_set: Path,
        inference: InferenceConfig,
        paths: WalkerPaths,
        scratch: Path,
        resume_from: Path | None = None,
    ) -> dict[str, Any]:
        """Run one walker until its last step, its halt, its crash or its time limit; `outcome.json` is written last.

        Killed at any point, or out of time, and called again with the same arguments, it goes on from the last restart
        file in `scratch`, and its files are those of one run.

        Parameters
        ----------
        atoms : Atoms
            Start structure; velocities are drawn from `inference.seed`.
        potential, active_set : Path
            B-basis potential (.yaml) and its inverse active set (.asi).
        paths : WalkerPaths
            Where the finished files go; an outcome of an earlier attempt is removed first. `paths.restart` is the last
            restart file with gamma up to `gamma_select` of a run that did not complete, where there is one.
        scratch : Path
            Folder of the run; removed at the end, but for a run that is out of time.
        resume_from : Path, optional
            Restart file of another run (of the potential before this one) to go on from, in place of `atoms`.

        Returns
        -------
        dict
            `outcome` (completed, halted, crashed, out_of_time), `step` (last one known), `steps` (asked for),
            `start_step` (0, or that of `resume_from`), `time_ps`, `gamma_max` (over the run), `atom` (0-based index of
            the largest gamma in the last frame), `temperature` (K) and `pressure` (bar, None: no barostat) as targeted
            where it ended, `stage` in which it ended (from 1), `conditions` (of all stages, in words), `seed`,
            `reason`, `walker`, `attempts` (how often LAMMPS was started), `seconds` (of all attempts), `engine`
            (`name`, `version`, `command`, `reason`). `gamma_max` and `atom` are None when no gamma was ever written.

        Raises
        ------
        LammpsFailed
            No step was computed (a missing potential, a broken installation, a start structure without finite forces),
            the program was killed by a signal from outside, or its time limit came before its first restart file. What
            it wrote stays in `scratch`.
        """
        paths.outcome.unlink(missing_ok=True)
        paths.restart.unlink(missing_ok=True)
        run = WalkerPaths(scratch)
        attempt = begin_attempt(run, atoms, potential, active_set, inference, resume_from)
        code = self._run_lammps(run, attempt.arguments)
        seconds = join_attempts(run)
        append_latest_frames(run)
        in_time = code is not None
        failure = _explain(code, run) if code else None
        if not len(read_thermo(run.log)) and (failure or not in_time):
            raise LammpsFailed(f"{failure or 'out of time'}; no step was computed: read {run.log}")
        outcome = describe_outcome(run, inference, failure, in_time)
        restarts = list_restarts(scratch)
        if outcome["outcome"] == "out_of_time" and (not restarts or restarts[0].step == attempt.step):
            raise LammpsFailed(
                f"{self.max_minutes:.3g} minutes ended MD at step {outcome['step']}, before its next restart file "
                f"(each {inference.restart_steps} steps): raise exploration.max_minutes or, where a profile gives it, "
                "the run time of run_md; or lower lammps.restart_every"
            )
        outcome |= {
            "walker": paths.directory.name,
            "attempts": attempt.number,
            "seconds": seconds,
            "engine": {
                "name": self.engine,
                "version": read_version(run.log),
                "command": " ".join(self.command) if self.engine == "executable" else None,
                "reason": self.reason,
            },
        }
        self._deliver(run, paths, outcome, inference)
        return outcome

    def _run_lammps(self, run: WalkerPaths, arguments: list[str]) -> int | None:
        """Run the program in the folder of `run`; its exit code, None when it was ended at its time limit."""
        with (run.directory / ERRORS).open("w") as stderr:
            process = subprocess.Popen(
                [*self.command, "-in", run.input.name, *arguments],
                cwd=run.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads)},
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
            try:
                return process.wait(None if self.max_minutes is None else 60 * self.max_minutes)
            except subprocess.TimeoutExpired:
                _end(process)
                return None

    def _deliver(
        self, run: WalkerPaths, paths: WalkerPaths, outcome: dict[str, Any], inference: InferenceConfig
    ) -> None:
        """Put the files of a run where they belong, its outcome last; a run out of time keeps its own too."""
        continues = outcome["outcome"] == "out_of_time"
        if outcome["outcome"] != "completed":
            safe = find_safe_restart(run.directory, read_thermo(run.log), inference.gamma_select)
            if safe is not None:
                with write_atomically(paths.restart) as aside:
                    shutil.copy(safe.file, aside)
        for source, target in (
            (run.input, paths.input),
            (run.start, paths.start),
            (run.log, paths.log),
            (run.dump, paths.dump),
        ):
            source.touch()  # a run that crashed at once may have no dump yet
            with write_atomically(target) as aside:
                (shutil.copy if continues else shutil.move)(source, aside)
        write_json(paths.outcome, outcome)
        if not continues:
            shutil.rmtree(run.directory)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, which a launcher passes on, then SIGKILL."""
    process.terminate()
    try:
        process.wait(TERMINATION_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _explain(code: int, run: WalkerPaths) -> str:
    """Why a program that ended with `code` failed.

    Raises
    ------
    LammpsFailed
        It was killed from outside, which says nothing about the potential.
    """
    if code < 0 or code > 128:  # a launcher ends with 128 + N when a process of it was killed by signal N
        name = signal.Signals(-code if code < 0 else code - 128).name
        if name not in ("SIGSEGV", "SIGABRT"):  # which MD that has blown up can cause; others come from outside
            raise LammpsFailed(f"LAMMPS was killed by {name}")
        return f"LAMMPS was killed by {name}"
    if error := read_error(run.log):
        return error
    lines = (run.directory / ERRORS).read_text().strip().splitlines()
    return lines[-1] if lines else f"LAMMPS ended with exit code {code} and said nothing"


def describe_outcome(
    run: WalkerPaths, inference: InferenceConfig, failure: str | None, in_time: bool = True
) -> dict[str, Any]:
    """What became of a run, from its log and dump; keys as in `LammpsRunner.run_md`, but those of its attempts.

    Completed means that the last step is the one asked for, whatever else the log says.
    """
    halt = None
    start_step, step, time_ps, gamma_max = 0, 0, 0.0, None
    if run.log.exists():
        halt = read_halt(run.log)
        thermo = read_thermo(run.log)
        if len(thermo):
            start_step, step, time_ps = int(thermo.index[0]), int(thermo.index[-1]), float(thermo["Time"].iloc[-1])
            largest = float(thermo["v_gamma_max"].max())
            gamma_max = largest if math.isfinite(largest) else None
    index, since = inference.find_stage(step)
    stage = inference.stages[index]
    frames = read_last_frames(run.dump) if run.dump.exists() else []
    atom = int(frames[-1].arrays["gamma"].argmax()) if frames else None
    if failure is not None:
        outcome, reason = "crashed", failure
    elif halt is not None and halt.step == step:
        outcome = "halted"
        reason = f"gamma {halt.gamma:.4g} of atom {atom} above {inference.uncertainty_threshold:g} at step {halt.step}"
    elif step == inference.steps:
        outcome, reason = "completed", f"all {step} steps below gamma {inference.uncertainty_threshold:g}"
    elif not in_time:
        outcome, reason = "out_of_time", f"ended at its time limit at step {step} of {inference.steps}; to be continued"
    else:
        outcome, reason = "crashed", f"LAMMPS ended at step {step} of {inference.steps} without saying why"
    return {
        "outcome": outcome,
        "step": step,
        "steps": inference.steps,
        "start_step": start_step,
        "time_ps": time_ps,
        "gamma_max": gamma_max,
        "atom": atom,
        "temperature": stage.temperature_at(since),
        "pressure": stage.pressure,
        "stage": index + 1,
        "conditions": "; then ".join(stage.describe() for stage in inference.stages),
        "seed": inference.seed,
        "reason": reason,
    }
