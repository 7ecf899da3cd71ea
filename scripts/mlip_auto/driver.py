"""The loop: one Snakemake call a generation (and one a confirmation), until MD no longer halts."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path

from rich.console import Console

from mlip_auto.campaign_lock import hold_lock
from mlip_auto.config import CampaignConfig
from mlip_auto.config_dft import Dft
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.processes import CampaignLocked, Owner, find_snakemake
from mlip_auto.progress import say, tabulate_generations
from mlip_auto.relabel import (
    describe_change,
    drop_other_shards,
    find_other_settings,
    forget_last_fit,
    list_labelled,
    restart_waiting,
)
from mlip_auto.slurm import (
    SlurmMissing,
    SlurmUnreachable,
    cancel_jobs,
    describe_jobs,
    list_jobs,
    name_prefix,
    settle_jobs,
    was_used,
)
from mlip_auto.snakemake_run import (
    CampaignError,
    Interrupted,
    LostSlurm,
    SnakemakeCall,
    SnakemakeRun,
    raise_on_signals,
)
from mlip_auto.state import Decision, Phase, WorkflowManager, find_warnings, read_summaries
from mlip_auto.structures import read_json
from mlip_auto.summary import read_records

LABEL_ANEW = ("--forcerun", "label_structures")  # what is in the store comes from there
FRUITLESS_RESTARTS = 3  # of a Snakemake that hangs, one after the other without a step done between them


class ExitCode(IntEnum):
    CONVERGED = 0
    FAILED = 1
    BAD_CONFIG = 2
    STOPPED = 3


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
        SIGINT, SIGTERM or SIGHUP; all children have ended, and it says what became of jobs in Slurm.
    """
    paths = CampaignPaths(call.directory)
    manager = WorkflowManager(paths, config)
    changed = find_other_settings(paths, config.dft)
    if changed and not relabel:
        raise CampaignError(_describe_changed(changed, config.dft))
    if not changed and (code := _say_outcome(manager, console)) is not None:
        return code
    with (
        raise_on_signals(),
        hold_lock(paths.driver_lock, paths.root) as owner,
        _keep_closing_words(paths.closing_words),
    ):
        driver = _Driver(manager, call, owner, console)
        try:
            if (snakemake := find_snakemake(paths.root)) is not None:
                raise CampaignLocked(f"Snakemake (pid {snakemake.pid}) works in {paths.root}; wait for it or end it.")
            driver.take_over()
            if changed and (missing := driver.relabel()):
                say(console, f"Stopped: {missing}. With a raised limit `mlip-auto run --relabel` goes on.")
                return ExitCode.STOPPED
            while (code := _say_outcome(manager, console)) is None:
                driver.run_once()
        except Interrupted as interruption:
            sent = driver.slurm
            interruption.left = _leave_jobs(paths.root, interruption.signal) if sent else "all jobs have ended"
            raise
        except SlurmMissing as error:
            raise CampaignError(f"{error}: run mlip-auto on a login node of the cluster.") from None
    return code


@contextmanager
def _keep_closing_words(file: Path) -> Iterator[None]:
    """Leave for `mlip-auto status` what a run says when it fails or is stopped: its terminal may be closed by then."""
    file.unlink(missing_ok=True)
    try:
        yield
    except (CampaignError, Interrupted) as error:
        with suppress(OSError):  # a full file system, which `error` may be about
            file.write_text(f"{error}\n")
        raise


@dataclass(frozen=True)
class _Driver:
    """What one `mlip-auto run` does while it holds the campaign."""

    manager: WorkflowManager
    call: SnakemakeCall
    owner: Owner
    console: Console

    @property
    def paths(self) -> CampaignPaths:
        return self.manager.paths

    @property
    def slurm(self) -> bool:
        """Whether jobs of the campaign may be in Slurm's queue, sent now or by an earlier run."""
        return self.call.uses_slurm or was_used(self.paths.root)

    def take_over(self) -> None:
        """Wait for what a killed driver left in the queue; only then remove the lock of its Snakemake."""
        if self.slurm:
            settle_jobs(self.paths.root, partial(say, self.console))
        if any((self.paths.root / ".snakemake" / "locks").glob("*")):
            self._unlock()

    def _unlock(self) -> None:
        call = self.call.command("--unlock")
        done = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise CampaignError(
                f"{done.stdout}\nSnakemake could not unlock {self.call.directory}; its reason stands above."
            )

    def relabel(self) -> str:
        """Label all generations anew, one Snakemake call each; what a limit left without a label, empty for nothing."""
        dft = self.manager.config.dft
        forget_last_fit(self.paths)
        for generation in list_labelled(self.paths):
            files = self.paths.generation(generation)
            say(self.console, f"gen {generation}  labelling anew with settings {compute_settings_hash(dft)[:12]}")
            restart_waiting(files)
            # No other rule of an old generation may run again: its candidates and its selection stand.
            target = str(files.labels.relative_to(self.paths.root))
            rules = ("--allowed-rules", "label_structures", "collect_labels")
            self._run_snakemake(generation, target, *rules, *LABEL_ANEW, "--config", f"generation={generation}")
            drop_other_shards(files, dft)
            pending = [record["reason"] for record in read_records(files).values() if record["status"] == "pending"]
            if pending:
                return f"{len(pending)} structures of generation {generation} are not labelled anew ({pending[0]})"
        return ""

    def run_once(self) -> None:
        """One generation or confirmation, and what it brought."""
        before = self.manager.read_state()
        generation, confirmation = before.next_run
        arguments = ["--config", f"generation={generation}"]
        if before.decision is Decision.CONTINUE:
            say(self.console, f"gen {generation}  MD that ran out of time goes on")
            _forget_unfinished(self.paths.generation(generation))
            before = self.manager.read_state()
            arguments.append(f"confirmation={confirmation}")
        elif confirmation:
            arguments.append(f"confirmation={confirmation}")
            confirmations = self.manager.config.loop.confirmations
            say(self.console, f"gen {generation}  no walker halted: confirmation {confirmation} of {confirmations}")
        if not generation and self.manager.find_lack():
            # More of its structures may be labelled now than at the last call.
            restart_waiting(self.paths.generation(0))
            arguments = [*LABEL_ANEW, *arguments]
        try:
            self._run_snakemake(generation, *arguments)
        except CampaignError as error:
            state = self.manager.read_state()
            stopped = state.decision is Decision.STOPPED
            from mlip_auto.dashboard import write_dashboard  # plotly, which no other run of the driver needs

            write_dashboard(self.paths, self.manager.config, broken=state.reason if stopped else str(error))
            if not stopped:
                raise
            return  # the fit failed since the limit of cost left too few labels for it
        after = self.manager.read_state()
        if after == before or after.decision is None:
            raise CampaignError(
                f"Snakemake ended without an error and without a new {self.paths.generation(generation).summary}; "
                f"its output is in {self.paths.snakemake_log(generation)}."
            )
        if after.decision is not Decision.CONFIRM:
            summaries = read_summaries(self.paths)
            self.console.print(tabulate_generations(summaries[-1:]))
            for warning in find_warnings(summaries):
                say(self.console, f"warning: {warning}")

    def _run_snakemake(self, generation: int, *arguments: str) -> None:
        """Run Snakemake to its end; one that lost sight of Slurm is started again, as long as that helps."""
        slurm = self.call.uses_slurm
        if slurm:
            arguments = ("--slurm-jobname-prefix", name_prefix(self.manager.config.name, generation), *arguments)
        command = self.call.command(*arguments)
        fruitless, steps = 0, None
        while True:
            run = SnakemakeRun(command, self.paths, generation, self.owner, self.console, slurm)
            try:
                return run.run()
            except LostSlurm as lost:
                fruitless = fruitless + 1 if steps is not None and run.progress.total >= steps else 0
                steps = run.progress.total
                if fruitless == FRUITLESS_RESTARTS:
                    raise CampaignError(f"{lost}, again and again: docs/cluster.md names the causes.") from None
                say(self.console, f"{lost}; it is started again (docs/cluster.md says more).")
                self.take_over()


def _forget_unfinished(files: GenerationPaths) -> None:
    """Let Snakemake run the walkers that ran out of time again: each goes on from its restart file."""
    for file in files.directory.glob("md/*/outcome.json"):
        if read_json(file)["outcome"] == "out_of_time":
            file.unlink()
    files.summary.unlink()


def _leave_jobs(root: Path, number: signal.Signals) -> str:
    """What became of the jobs of a driver that is stopped: SIGINT cancels them, as in Snakemake; else they go on."""
    try:
        jobs = list_jobs(root)
        if number == signal.SIGINT:
            cancel_jobs(jobs)
    except SlurmUnreachable as error:
        return f"jobs may be left in Slurm's queue ({error})"
    if not jobs:
        return "all jobs have ended"
    became = "are cancelled" if number == signal.SIGINT else "go on and will be waited for"
    return f"{describe_jobs(jobs)} {became}"


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
            f"{state.confirmations_done}); the potential is {potential}. Next: look at "
            "results/dashboard.html, then `mlip-auto export DIR`.",
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
