"""Where a campaign stands, read off its files, and what comes next: pure functions, no state of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlip_auto.config import CampaignConfig, Loop
from mlip_auto.ledger import describe_spent
from mlip_auto.paths import CampaignPaths, GenerationPaths
from mlip_auto.structures import is_held_out, read_json, read_structures

REPEATED_GENERATIONS = 3  # so many successive halts of one walker at one place are no accident
SAME_STEP_FRACTION = 0.05  # of the steps asked for: halts closer than this count as the same place


class Phase(StrEnum):
    IDLE = "IDLE"
    GENERATION = "GENERATION"
    SELECTION = "SELECTION"
    DFT = "DFT"
    TRAINING = "TRAINING"
    INFERENCE = "INFERENCE"
    EXTRACTION = "EXTRACTION"
    CONVERGED = "CONVERGED"
    STOPPED = "STOPPED"


class Decision(StrEnum):
    """What a finished generation leads to: `decision` of summary.json."""

    NEXT_GENERATION = "next_generation"
    CONFIRM = "confirm"
    CONTINUE = "continue"  # the same generation: MD that ran out of time goes on from its restart files
    CONVERGED = "converged"
    STOPPED = "stopped"


NEXT_PHASE = {
    Phase.IDLE: Phase.GENERATION,
    Phase.GENERATION: Phase.SELECTION,
    Phase.SELECTION: Phase.DFT,
    Phase.DFT: Phase.TRAINING,
    Phase.TRAINING: Phase.INFERENCE,
    Phase.INFERENCE: Phase.EXTRACTION,
    Phase.EXTRACTION: Phase.EXTRACTION,  # its summary and what is made from it are still to be written
}

PHASE_OF_DECISION = {
    Decision.NEXT_GENERATION: Phase.GENERATION,
    Decision.CONFIRM: Phase.INFERENCE,
    Decision.CONTINUE: Phase.INFERENCE,
    Decision.CONVERGED: Phase.CONVERGED,
    Decision.STOPPED: Phase.STOPPED,
}


@dataclass(frozen=True)
class WorkflowState:
    """A campaign between two steps.

    Attributes
    ----------
    generation
        The last generation with files; 0 for an empty campaign.
    phase
        Its last phase that has begun (IDLE: none).
    pending_tasks
        Tasks of `phase` without a result yet, e.g. shards to label or walkers to run.
    decision, reason
        What the finished generation leads to, and why it stops; None while the generation is under way.
    confirmations_done
        Fresh velocity seeds that have run on this generation's potential.
    """

    generation: int
    phase: Phase
    pending_tasks: tuple[str, ...] = ()
    decision: Decision | None = None
    reason: str = ""
    confirmations_done: int = 0

    @property
    def next_run(self) -> tuple[int, int]:
        """`generation` and `confirmation` (0: none) of the Snakemake call that comes next."""
        if self.decision is Decision.NEXT_GENERATION:
            return self.generation + 1, 0
        if self.decision is Decision.CONFIRM:
            return self.generation, self.confirmations_done + 1
        if self.decision is Decision.CONTINUE:
            return self.generation, self.confirmations_done
        return self.generation, 0


class WorkflowManager:
    """Reads the state of one campaign and says what comes next."""

    def __init__(self, paths: CampaignPaths, config: CampaignConfig):
        self.paths = paths
        self.config = config

    def read_state(self) -> WorkflowState:
        """The campaign as its files show it.

        The decision is made anew from the facts in summary.json, so that a raised `loop.max_generations` or
        `loop.confirmations` lets a finished campaign go on.
        """
        generation = last_generation(self.paths)
        files = self.paths.generation(generation)
        if files.summary.exists():
            summary = read_json(files.summary)
            confirmations_done = summary["confirmations_done"]
            if stale := _stale_pages(self.paths, files):
                return WorkflowState(generation, Phase.EXTRACTION, stale, confirmations_done=confirmations_done)
            decision, reason = decide_generation(
                generation=generation,
                outcomes={name: walker["outcome"] for name, walker in summary["walkers"].items()},
                confirmations_done=confirmations_done,
                labelled=summary["labelled"],
                next_candidates=summary["next_candidates"],
                no_more_labels=self._describe_spent(),
                loop=self.config.loop,
            )
            return WorkflowState(generation, Phase.EXTRACTION, (), decision, reason, confirmations_done)
        phase, pending = _current_phase(files)
        if (spent := self._describe_spent()) and (lack := self.find_lack()):
            return WorkflowState(generation, phase, pending, Decision.STOPPED, f"{spent}, and {lack}")
        return WorkflowState(generation, phase, pending)

    def find_lack(self) -> str:
        """What the labels of a generation 0 without a fit lack for one; empty when they suffice or are to come."""
        files = self.paths.generation(0)
        if files.metrics.exists() or not files.labels.exists():
            return ""
        fraction = self.config.training.held_out_fraction
        labels = [
            atoms for atoms in read_structures(files.labels) if not is_held_out(atoms.info["structure_id"], fraction)
        ]
        functions = self.config.training.basis.number_of_functions_per_element
        found = {
            element: sum(atoms.symbols.count(element) for atoms in labels) for element in self.config.system.elements
        }
        lacking = [f"{number} environments of {element}" for element, number in found.items() if number < functions]
        return f"{' and '.join(lacking)} are too few to fit {functions} functions" if lacking else ""

    def _describe_spent(self) -> str:
        return describe_spent(self.paths, self.config.dft.max_core_hours)

    @staticmethod
    def decide_next_step(state: WorkflowState) -> Phase:
        """The phase that runs next; CONVERGED and STOPPED: none."""
        if state.decision is not None:
            return PHASE_OF_DECISION[state.decision]
        if state.pending_tasks:
            return state.phase
        return NEXT_PHASE[state.phase]

    def missing_files(self) -> list[str]:
        """Files of finished generations that are gone, as they are named in results/.

        Snakemake accepts a target that exists even when the files it was made from have vanished.
        """
        missing = []
        last = last_generation(self.paths)
        for number in range(last + 1):
            files = self.paths.generation(number)
            finished = number < last or files.summary.exists()
            needed = [
                files.summary,
                files.selected,
                files.labels,
                files.potential,
                files.active_set,
                files.extracted,
            ]
            missing += [str(path) for path in needed if finished and not path.exists()]
        return missing


def last_generation(paths: CampaignPaths) -> int:
    """The highest generation that has files; 0 when there are none."""
    numbers = [
        int(folder.name.removeprefix("gen_"))
        for folder in paths.results.glob("gen_[0-9][0-9][0-9]*")
        if any(file.is_file() for file in folder.rglob("*"))
    ]
    return max(numbers, default=0)


def read_summaries(paths: CampaignPaths) -> list[dict[str, Any]]:
    """summary.json of each finished generation, in order."""
    files = (paths.generation(number).summary for number in range(last_generation(paths) + 1))
    return [read_json(file) for file in files if file.exists()]


def _stale_pages(paths: CampaignPaths, files: GenerationPaths) -> tuple[str, ...]:
    """What is made after the summary and is not there or older: a run was killed between the two.

    Left so, a finished campaign would show the generation before, and the next one would miss a figure.
    """
    written = files.summary.stat().st_mtime
    pages = (files.figure, paths.database, paths.dashboard)
    return tuple(page.name for page in pages if not page.exists() or page.stat().st_mtime < written)


def _current_phase(files: GenerationPaths) -> tuple[Phase, tuple[str, ...]]:
    """Phase and pending tasks of an unfinished generation; the last file of a phase says that it is over."""
    steps = [
        (Phase.GENERATION, files.candidates),
        (Phase.SELECTION, files.selected),
        (Phase.DFT, files.labels),
        (Phase.TRAINING, files.metrics),
    ]
    done = Phase.IDLE
    for phase, result in steps:
        if not result.exists():
            # A labelling that left a shard has begun; no other phase shows before it ends.
            if phase is Phase.DFT and files.list_shard_records():
                return phase, ("labels",)
            return done, ()
        done = phase
    if files.extracted.exists():
        return Phase.EXTRACTION, ("summary",)
    walkers = sorted(folder for folder in files.directory.glob("md/*") if folder.is_dir())
    pending = tuple(folder.name for folder in walkers if not files.walker(folder.name).outcome.exists())
    return (Phase.INFERENCE, pending) if walkers else (done, ())


def decide_generation(
    *,
    generation: int,
    outcomes: Mapping[str, str],
    confirmations_done: int,
    labelled: int,
    next_candidates: int,
    no_more_labels: str,
    loop: Loop,
) -> tuple[Decision, str]:
    """What a finished generation leads to, and the reason when it stops the campaign.

    Parameters
    ----------
    outcomes
        `outcome` of each walker of the generation, those of its confirmations included.
    confirmations_done
        Confirmations that have run on this generation's potential.
    labelled
        Labels that this generation added to the training set.
    next_candidates
        Structures that wait for the next generation.
    no_more_labels
        Why no further label may be paid; empty when some may.
    """
    unknown = _describe_unknown(outcomes)
    if labelled == 0:
        return (
            Decision.STOPPED,
            no_more_labels or f"generation {generation} added no label: another fit would change nothing",
        )
    if unknown:
        if next_candidates == 0:
            return (
                Decision.STOPPED,
                f"{unknown}, and there is no structure to learn from",
            )
        if generation + 1 >= loop.max_generations:
            return (
                Decision.STOPPED,
                f"loop.max_generations ({loop.max_generations}) reached; {unknown}",
            )
        if no_more_labels:
            return Decision.STOPPED, f"{no_more_labels}; {unknown}"
        return Decision.NEXT_GENERATION, ""
    if "out_of_time" in outcomes.values():
        return Decision.CONTINUE, ""
    if confirmations_done < loop.confirmations:
        return Decision.CONFIRM, ""
    return Decision.CONVERGED, ""


def _describe_unknown(outcomes: Mapping[str, str]) -> str:
    """Which MD met what the potential does not know; empty for none."""
    said = []
    for outcome, verb in (("halted", "still halts"), ("crashed", "crashed")):
        if walkers := sorted(name for name, found in outcomes.items() if found == outcome):
            said.append(f"MD of {', '.join(walkers)} {verb}")
    return " and ".join(said)


def find_warnings(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a user should know about the latest of successive generations' summaries.

    Cuts that were refused, a walker that halted before its first step, and a walker that halted at the same atom and
    (nearly) the same step in three successive generations: what was cut there taught the potential nothing.
    """
    if not summaries:
        return []
    latest = summaries[-1]
    warnings = [
        f"generation {latest['generation']}: MD of {name} halted at step 0; the training set does not know "
        "even its starting structure: give larger initial.structures.rattles"
        for name, walker in latest["walkers"].items()
        if walker["outcome"] == "halted" and walker["step"] == 0
    ]
    if refused := latest.get("cuts_refused"):  # not in summaries of earlier versions
        warnings.append(
            f"generation {latest['generation']}: {len(refused)} cuts were not made; the first: {refused[0]}"
        )
    recent = summaries[-REPEATED_GENERATIONS:]
    if len(recent) < REPEATED_GENERATIONS:
        return warnings
    for name in latest["walkers"]:
        halts = [summary["walkers"].get(name, {"outcome": "absent"}) for summary in recent]
        if all(halt["outcome"] == "halted" for halt in halts) and _same_place(halts):
            warnings.append(
                f"MD of {name} halted at atom {halts[-1]['atom']} near step {halts[-1]['step']} in each of the "
                f"last {REPEATED_GENERATIONS} generations: what is cut there does not teach the potential; "
                "look at results/gen_*/extracted.extxyz, or choose another extraction.mode"
            )
    return warnings


def _same_place(halts: Sequence[Mapping[str, Any]]) -> bool:
    steps = [halt["step"] for halt in halts]
    tolerance = SAME_STEP_FRACTION * halts[-1]["steps"]
    return len({halt["atom"] for halt in halts}) == 1 and max(steps) - min(steps) <= tolerance
