"""The decision table of the loop, and what is noticed about its generations."""

import json
import os
from pathlib import Path

import pytest

from mlip_auto.config import Loop, load_config
from mlip_auto.paths import CampaignPaths
from mlip_auto.state import Decision, Phase, WorkflowManager, WorkflowState, decide_generation, find_warnings

REPO = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("phase", "pending", "expected"),
    [
        (Phase.IDLE, (), Phase.GENERATION),
        (Phase.GENERATION, (), Phase.SELECTION),
        (Phase.SELECTION, (), Phase.DFT),
        (Phase.DFT, ("0", "1"), Phase.DFT),
        (Phase.DFT, (), Phase.TRAINING),
        (Phase.TRAINING, ("potential",), Phase.TRAINING),
        (Phase.TRAINING, (), Phase.INFERENCE),
        (Phase.INFERENCE, ("md_900K",), Phase.INFERENCE),
        (Phase.INFERENCE, (), Phase.EXTRACTION),
        (Phase.EXTRACTION, ("summary",), Phase.EXTRACTION),
        (Phase.EXTRACTION, (), Phase.EXTRACTION),
    ],
)
def test_decide_within_a_generation(phase, pending, expected):
    assert WorkflowManager.decide_next_step(WorkflowState(1, phase, pending)) is expected


@pytest.mark.parametrize(
    ("decision", "expected", "next_run"),
    [
        (Decision.NEXT_GENERATION, Phase.GENERATION, (4, 0)),
        (Decision.CONFIRM, Phase.INFERENCE, (3, 2)),
        (Decision.CONTINUE, Phase.INFERENCE, (3, 1)),
        (Decision.CONVERGED, Phase.CONVERGED, (3, 0)),
        (Decision.STOPPED, Phase.STOPPED, (3, 0)),
    ],
)
def test_decide_after_a_generation(decision, expected, next_run):
    state = WorkflowState(3, Phase.EXTRACTION, decision=decision, confirmations_done=1)
    assert WorkflowManager.decide_next_step(state) is expected
    assert state.next_run == next_run


CLEAN = {"md_300K": "completed", "md_900K": "completed"}
HALTED = {"md_300K": "completed", "md_900K": "halted"}
CRASHED = {"md_300K": "crashed", "md_900K": "completed"}


@pytest.mark.parametrize(
    ("facts", "decision", "reason"),
    [
        ({"outcomes": HALTED}, Decision.NEXT_GENERATION, ""),
        ({"outcomes": CRASHED}, Decision.NEXT_GENERATION, ""),
        ({"outcomes": HALTED, "next_candidates": 0}, Decision.STOPPED, "MD of md_900K still halts, and there is no"),
        ({"outcomes": CRASHED, "next_candidates": 0}, Decision.STOPPED, "MD of md_300K crashed, and there is no"),
        ({"outcomes": CRASHED, "generation": 4}, Decision.STOPPED, "reached; MD of md_300K crashed"),
        (
            {"outcomes": CRASHED | {"md_900K": "halted"}, "generation": 4},
            Decision.STOPPED,
            "MD of md_900K still halts and MD of md_300K crashed",
        ),
        ({"outcomes": HALTED, "labelled": 0}, Decision.STOPPED, "added no label"),
        ({"outcomes": CLEAN, "labelled": 0}, Decision.STOPPED, "added no label"),
        ({"outcomes": HALTED, "generation": 4}, Decision.STOPPED, "max_generations (5)"),
        ({"outcomes": HALTED, "no_more_labels": "all is spent"}, Decision.STOPPED, "all is spent; MD of md_900K"),
        ({"outcomes": HALTED, "no_more_labels": "all is spent", "labelled": 0}, Decision.STOPPED, "all is spent"),
        ({"outcomes": CLEAN, "no_more_labels": "all is spent"}, Decision.CONFIRM, ""),
        ({"outcomes": CLEAN, "generation": 4}, Decision.CONFIRM, ""),
        ({"outcomes": CLEAN}, Decision.CONFIRM, ""),
        ({"outcomes": CLEAN, "confirmations_done": 1}, Decision.CONFIRM, ""),
        ({"outcomes": CLEAN, "confirmations_done": 2}, Decision.CONVERGED, ""),
        (
            {"outcomes": CLEAN | {"md_900K_c2": "halted"}, "confirmations_done": 2},
            Decision.NEXT_GENERATION,
            "",
        ),
        ({"outcomes": CLEAN | {"md_300K": "out_of_time"}}, Decision.CONTINUE, ""),
        ({"outcomes": CLEAN | {"md_900K_c2": "out_of_time"}, "confirmations_done": 2}, Decision.CONTINUE, ""),
        ({"outcomes": HALTED | {"md_300K": "out_of_time"}}, Decision.NEXT_GENERATION, ""),
    ],
)
def test_decide_generation(facts, decision, reason):
    usual = {"generation": 1, "confirmations_done": 0, "labelled": 8, "next_candidates": 3, "no_more_labels": ""}
    made, because = decide_generation(**(usual | facts), loop=Loop(max_generations=5, confirmations=2))
    assert made is decision
    assert reason in because
    assert bool(because) == (decision is Decision.STOPPED)


def summary(generation: int, **walkers: tuple[str, int, int]) -> dict:
    return {
        "generation": generation,
        "labelled": 8,
        "next_candidates": 3,
        "confirmations_done": 0,
        "walkers": {
            name: {"outcome": outcome, "step": step, "steps": 1000, "atom": atom}
            for name, (outcome, step, atom) in walkers.items()
        },
    }


def test_the_same_halt_three_times_is_noticed():
    halts = [summary(n, a=("halted", 100 + 10 * n, 7), b=("completed", 1000, 3)) for n in range(3)]
    (warning,) = find_warnings(halts)
    assert "MD of a halted at atom 7 near step 120" in warning
    assert find_warnings(halts[:2]) == []


@pytest.mark.parametrize(
    "last",
    [
        {"a": ("halted", 120, 8)},  # another atom
        {"a": ("halted", 400, 7)},  # much later
        {"a": ("completed", 1000, 7)},
        {"b": ("halted", 120, 7)},  # another walker
    ],
)
def test_different_halts_are_not_a_repetition(last):
    assert find_warnings([summary(0, a=("halted", 100, 7)), summary(1, a=("halted", 110, 7)), summary(2, **last)]) == []


def test_a_halt_at_step_0_is_said():
    (warning,) = find_warnings([summary(0, a=("halted", 0, 7))])
    assert "halted at step 0" in warning and "rattles" in warning


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def make_pages(paths: CampaignPaths) -> None:
    """What Snakemake makes after the summary of generation 0."""
    for path in (paths.generation(0).figure, paths.database, paths.dashboard):
        touch(path)


def test_refused_cuts_are_warned_of():
    refusals = ["generation 0, a, step 40, atom 7, gamma 9.10: too large", "another"]
    (warning,) = find_warnings([summary(0, a=("halted", 40, 7)) | {"cuts_refused": refusals}])
    assert "2 cuts were not made" in warning and refusals[0] in warning


def test_read_state_follows_the_files(tmp_path):
    paths = CampaignPaths(tmp_path)
    manager = WorkflowManager(paths, load_config(REPO / "config/examples/al_emt.yaml"))
    files = paths.generation(0)
    finishes = [
        (files.candidates, Phase.SELECTION),
        (files.selected, Phase.DFT),
        (files.shard_record(0), Phase.DFT),
        (files.labels, Phase.TRAINING),
        (files.metrics, Phase.INFERENCE),
        (files.walker("md_300K").log, Phase.INFERENCE),
        (files.walker("md_300K").outcome, Phase.EXTRACTION),
        (files.extracted, Phase.EXTRACTION),
    ]
    assert manager.decide_next_step(manager.read_state()) is Phase.GENERATION
    for path, expected in finishes:
        touch(path)
        assert manager.decide_next_step(manager.read_state()) is expected, path

    files.summary.write_text(json.dumps(summary(0, md_300K=("halted", 40, 1))))
    assert manager.read_state().pending_tasks == (files.figure.name, "database.db", "dashboard.html")
    assert manager.read_state().next_run == (0, 0)
    make_pages(paths)
    os.utime(paths.dashboard, (1, 1))  # left from the generation before
    assert manager.read_state().pending_tasks == ("dashboard.html",)
    touch(paths.dashboard)
    assert manager.read_state().next_run == (1, 0)
    assert manager.decide_next_step(manager.read_state()) is Phase.GENERATION
    touch(paths.generation(1).candidates)
    assert manager.read_state() == WorkflowState(1, Phase.GENERATION)


def test_a_raised_limit_lets_a_stopped_campaign_go_on(tmp_path):
    paths = CampaignPaths(tmp_path)
    config = load_config(REPO / "config/examples/al_emt.yaml")
    touch(paths.generation(0).summary)
    paths.generation(0).summary.write_text(json.dumps(summary(0, md_300K=("halted", 40, 1)) | {"decision": "stopped"}))
    make_pages(paths)
    for limit, expected in [(1, Phase.STOPPED), (2, Phase.GENERATION)]:
        limited = config.model_copy(update={"loop": Loop(max_generations=limit)})
        manager = WorkflowManager(paths, limited)
        assert manager.decide_next_step(manager.read_state()) is expected


def test_vanished_files_of_finished_generations_are_named(tmp_path):
    paths = CampaignPaths(tmp_path)
    manager = WorkflowManager(paths, load_config(REPO / "config/examples/al_emt.yaml"))
    assert manager.missing_files() == []
    files = paths.generation(0)
    for path in (files.summary, files.selected, files.potential, files.active_set, files.extracted):
        touch(path)
    touch(paths.generation(1).candidates)
    assert manager.missing_files() == [str(files.labels)]
