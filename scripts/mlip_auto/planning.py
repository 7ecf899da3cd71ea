"""What one Snakemake call is to do: known when the Snakefile is parsed, so that no checkpoint is needed."""

from dataclasses import dataclass
from math import ceil

from mlip_auto.config import CampaignConfig
from mlip_auto.initial import count_candidates
from mlip_auto.paths import CampaignPaths
from mlip_auto.state import Decision, Phase, WorkflowManager
from mlip_auto.structures import read_json


@dataclass(frozen=True)
class RunPlan:
    """One generation, its confirmations so far, and the number of labelling jobs."""

    generation: int
    confirmation: int
    shards: int
    message: str = ""


def plan_run(
    paths: CampaignPaths, config: CampaignConfig, generation: int | None = None, confirmation: int | None = None
) -> RunPlan:
    """Plan the call that names `generation` and `confirmation`, or the one that comes next when it names none.

    Raises
    ------
    FileNotFoundError
        When the generation before it has no summary.json.
    """
    manager = WorkflowManager(paths, config)
    message = ""
    if generation is None:
        state = manager.read_state()
        generation, next_confirmation = state.next_run
        confirmation = next_confirmation or state.confirmations_done
        phase = manager.decide_next_step(state)
        if phase is Phase.CONVERGED:
            message = f"The campaign {config.name} has converged in generation {generation}: nothing is left to do."
        elif state.decision is Decision.CONTINUE:
            message = f"MD of generation {generation} ran out of time: `mlip-auto run` lets it go on."
        elif phase is Phase.STOPPED:
            message = f"The campaign {config.name} has stopped in generation {generation}: {state.reason}."
    elif confirmation is None:
        summary = paths.generation(generation).summary
        confirmation = read_json(summary)["confirmations_done"] if summary.exists() else 0
    return RunPlan(generation, confirmation, count_shards(paths, config, generation), message)


def count_shards(paths: CampaignPaths, config: CampaignConfig, generation: int) -> int:
    """Labelling jobs of a generation: an upper bound, since selection may keep fewer than there are candidates."""
    if generation == 0:
        candidates = count_candidates(config, paths.root)
    else:
        candidates = read_json(paths.generation(generation - 1).summary)["next_candidates"]
    return ceil(min(candidates, config.selection.max_structures) / config.dft.structures_per_shard)
