"""The loop: one Snakemake call a generation (and one a confirmation), until MD no longer halts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from threading import Thread
from typing import IO, NoReturn

from rich.console import Console

import mlip_auto
from mlip_auto.config import CampaignConfig
from mlip_auto.config_dft import Dft
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.paths import CampaignPaths
from mlip_auto.processes import (
    CampaignLocked,
    Owner,
    die_with_parent,
    end_processes,
    find_processes,
    find_snakemake,
    hold_lock,
    tagged_environment,
)
from mlip_auto.progress import TAIL, Progress, say, tabulate_generations
from mlip_auto.relabel import (
    describe_change,
    drop_other_shards,
    find_other_settings,
    forget_last_fit,
    list_labelled,
    restart_waiting,
)
from mlip_auto.state import Decision, Phase, WorkflowManager, WorkflowState, find_warnings, read_summaries
from mlip_auto.summary import read_records

REPO = Path(mlip_auto.__file__).parents[2]
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LABEL_ANEW = ("--forcerun", "label_structures")  # what is in the store comes from there
STOP_GRACE = 30.0  # s that Snakemake has to cancel its jobs when it is asked to stop


class ExitCode(IntEnum):
    CONVERGED = 0
    FAILED = 1
    BAD_CONFIG = 2
    STOPPED = 3


class CampaignError(RuntimeError):
    """The campaign cannot go on; the message says why and how to cure it."""


class Interrupted(BaseException):
    """A signal asked the driver to stop. Not an Exception, like KeyboardInterrupt: nothing on the way may keep it."""

    def __init__(self, number: int):
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


@dataclass(frozen=True)
class SnakemakeCall:
    """How Snakemake is started; the names are those of its flags."""

    configfile: Path
    directory: Path
    profile: str | None = None
    cores: int | None = None

    def command(self, *arguments: str) -> list[str]:
        """Its command line with further `arguments`; profiles/local where no profile is named."""
        snakefile = REPO / "Snakefile"
        if not snakefile.exists():
            raise CampaignError(
                f"{snakefile}: no such file; mlip-auto runs from a clone of its repository: install it there with "
                "`make setup` or `pip install -e .`"
            )
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
        command += ["--directory", str(self.directory.resolve()), "--configfile", str(self.configfile.resolve())]
        command += ["--profile", self.profile or str(REPO / "profiles" / "local")]
        if self.cores is not None:
            command += ["--cores", str(self.cores)]
        return [*command, *arguments]


def run_campaign(config: CampaignConfig, call: SnakemakeCall, console: Console, relabel: bool = False) -> ExitCode:
    """Run generations until the campaign converges or stops; everything it knows it reads off the files.

    Parameters
    ----------
    relabel
        Label all structures of the campaign anew first when the config asks for other settings than their labels have.

    Raises
    ------
    CampaignError
        Snakemake failed, files of finished generations are gone, or there are labels of other settings.
    CampaignLocked
        Another driver, or a user's own Snakemake, works on the campaign.
    Interrupted
        SIGINT, SIGTERM or SIGHUP; all children have ended.
    """
    paths = CampaignPaths(call.directory)
    manager = WorkflowManager(paths, config)
    changed = find_other_settings(paths, config.dft)
    if changed and not relabel:
        raise CampaignError(_describe_changed(changed, config.dft))
    if not changed and (code := _say_outcome(manager, console)) is not None:
        return code
    with _raise_on_signals(), hold_lock(paths.driver_lock, paths.root) as owner:
        if (snakemake := find_snakemake(paths.root)) is not None:
            raise CampaignLocked(f"Snakemake (pid {snakemake.pid}) works in {paths.root}; wait for it or end it.")
        if any((paths.root / ".snakemake" / "locks").glob("*")):
            _unlock(call)
        if changed and (missing := _relabel(config.dft, call, owner, console)):
            say(console, f"Stopped: {missing}. With a raised limit `mlip-auto run --relabel` goes on.")
            return ExitCode.STOPPED
        while (code := _say_outcome(manager, console)) is None:
            _run_once(manager, call, owner, console)
    return code


def _unlock(call: SnakemakeCall) -> None:
    """Remove the lock that a killed Snakemake left; only when nothing works on the campaign any more."""
    done = subprocess.run(call.command("--unlock"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise CampaignError(f"{done.stdout}\nSnakemake could not unlock {call.directory}; its reason stands above.")


def _say_outcome(manager: WorkflowManager, console: Console) -> ExitCode | None:
    """The closing line of a campaign that has ended, and its exit code; None when it goes on."""
    if missing := manager.missing_files():
        raise CampaignError(
            "Files of finished generations are gone:\n"
            + "\n".join(f"    {path}" for path in missing)
            + "\nPut them back, or delete results/gen_* from that generation on: the store keeps the labels."
        )
    state = manager.read_state()
    phase = manager.decide_next_step(state)
    potential = manager.paths.generation(state.generation).potential_yace
    if phase is Phase.CONVERGED:
        say(
            console,
            f"Converged in generation {state.generation} (clean runs with fresh velocity seeds: "
            f"{state.confirmations_done}); the potential is {potential}. Next: `mlip-auto report`.",
        )
        return ExitCode.CONVERGED
    if phase is Phase.STOPPED:
        say(
            console,
            f"Stopped in generation {state.generation}: {state.reason}. Next: `mlip-auto status`; with a changed "
            "config `mlip-auto run` goes on.",
        )
        return ExitCode.STOPPED
    return None


def _describe_changed(changed: dict[int, str], dft: Dft) -> str:
    generations = ", ".join(map(str, changed))
    changes = (describe_change(found, dft) for found in sorted({*changed.values()}))
    return (
        f"The labels of generation {generations} were made with other settings than the config asks for now:\n"
        + "".join(f"    {change}\n" for change in changes)
        + "Labels of two settings are not one data set. Restore the old `dft` section, or run `mlip-auto run "
        "--relabel`: it labels all structures anew with the new settings and goes on (the store keeps the old labels)."
    )


def _relabel(dft: Dft, call: SnakemakeCall, owner: Owner, console: Console) -> str:
    """Label all generations anew, one Snakemake call each; what a limit left without a label, empty for nothing."""
    paths = CampaignPaths(call.directory)
    forget_last_fit(paths)
    for generation in list_labelled(paths):
        files = paths.generation(generation)
        say(console, f"gen {generation}  labelling anew with settings {compute_settings_hash(dft)[:12]}")
        restart_waiting(files)
        # No other rule of an old generation may run again: its candidates and its selection stand.
        target = str(files.labels.relative_to(paths.root))
        rules = ("--allowed-rules", "label_structures", "collect_labels")
        command = call.command(target, *rules, *LABEL_ANEW, "--config", f"generation={generation}")
        _run_snakemake(command, paths, generation, owner, console)
        drop_other_shards(files, dft)
        pending = [record["reason"] for record in read_records(files).values() if record["status"] == "pending"]
        if pending:
            return f"{len(pending)} structures of generation {generation} are not labelled anew ({pending[0]})"
    return ""


def _run_once(manager: WorkflowManager, call: SnakemakeCall, owner: Owner, console: Console) -> None:
    """One Snakemake call, and what it brought."""
    before = manager.read_state()
    generation, confirmation = before.next_run
    arguments = ["--config", f"generation={generation}"]
    if confirmation:
        arguments.append(f"confirmation={confirmation}")
        confirmations = manager.config.loop.confirmations
        say(console, f"gen {generation}  no walker halted: confirmation {confirmation} of {confirmations}")
    if not generation and manager.find_lack():
        # More of its structures may be labelled now than at the last call.
        restart_waiting(manager.paths.generation(0))
        arguments = [*LABEL_ANEW, *arguments]
    try:
        _run_snakemake(call.command(*arguments), manager.paths, generation, owner, console)
    except CampaignError:
        if manager.read_state().decision is not Decision.STOPPED:
            raise
        return  # the fit failed since the limit of cost left too few labels for it
    after = manager.read_state()
    if after == before or after.decision is None:
        raise CampaignError(
            f"Snakemake ended without an error and without a new {manager.paths.generation(generation).summary}; "
            f"its output is in {manager.paths.snakemake_log(generation)}."
        )
    _show_generation(manager, after, console)


def _show_generation(manager: WorkflowManager, state: WorkflowState, console: Console) -> None:
    if state.decision is Decision.CONFIRM:
        return
    summaries = read_summaries(manager.paths)
    console.print(tabulate_generations(summaries[-1:]))
    for warning in find_warnings(summaries):
        say(console, f"warning: {warning}")


def _run_snakemake(command: list[str], paths: CampaignPaths, generation: int, owner: Owner, console: Console) -> None:
    """Start Snakemake, follow it, and leave no process behind, however it ends."""
    log = paths.snakemake_log(generation)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = tagged_environment(paths.root, owner)
    environment.setdefault("OMP_NUM_THREADS", "1")  # Snakemake's own; a job gets its rule's threads
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    progress = Progress(generation, console)
    try:
        # Its own session: a signal of the terminal reaches the driver alone, which passes it on once.
        snakemake = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        assert snakemake.stdout is not None
        with log.open("a") as file:
            file.write(f"\n{time.ctime()}: {' '.join(command)}\n")
            follower = Thread(target=_follow, args=(snakemake.stdout, file, progress))
            follower.start()
            try:
                _wait(snakemake)
            finally:
                end_processes(find_processes(paths.root))
                follower.join()
    finally:
        progress.close()
        end_processes(find_processes(paths.root))
    if snakemake.returncode != 0:
        raise CampaignError(_describe_failure(snakemake.returncode, progress, paths.root, log, generation))


def _follow(lines: IO[str], file: IO[str], progress: Progress) -> None:
    for line in lines:
        file.write(line)
        file.flush()
        try:
            progress.feed(line)
        except (OSError, SystemExit):  # SystemExit: what rich makes of a closed pipe
            # Nobody is there to read: stop, as SIGPIPE would, and go on reading, or Snakemake could not end.
            os.kill(os.getpid(), signal.SIGTERM)


def _wait(snakemake: subprocess.Popen[str]) -> None:
    """Wait for Snakemake; when the driver is asked to stop, pass that on as Ctrl-C does and give it some time."""
    try:
        snakemake.wait()
    except Interrupted:
        if snakemake.poll() is None:
            os.killpg(snakemake.pid, signal.SIGINT)
        try:
            snakemake.wait(timeout=STOP_GRACE)
        except subprocess.TimeoutExpired:
            snakemake.kill()
        raise


def _describe_failure(code: int, progress: Progress, root: Path, log: Path, generation: int) -> str:
    if code < 0:
        found = f"Snakemake was ended by {signal.Signals(-code).name}"
    elif progress.failures:
        found = "\n".join(failure.describe(root) for failure in progress.failures)
    else:
        found = "Snakemake failed:\n" + "".join(f"    {line}\n" for line in log.read_text().splitlines()[-TAIL:])
    return (
        f"{found}\nFailed in generation {generation}; Snakemake's whole output is in {log}. "
        "When the cause is cured, the same command goes on from here."
    )


@contextmanager
def _raise_on_signals() -> Iterator[None]:
    """Turn the signals that ask for an end into `Interrupted`; one that is ignored (nohup) stays ignored."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise Interrupted(number)

    caught = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
