# Which generation this is, the names of its files, and the input functions of the rules.
import re
import sys
from pathlib import Path

from mlip_auto.config import parse_workflow_config
from mlip_auto.paths import CampaignPaths
from mlip_auto.planning import plan_run
from mlip_auto.walkers import base_walkers, confirmation_name

CONFIG = parse_workflow_config(config)
PATHS = CampaignPaths()
GEN = PATHS.pattern
RUN = plan_run(PATHS, CONFIG, config.get("generation"), config.get("confirmation"))
CURRENT = PATHS.generation(RUN.generation)
PREVIOUS = PATHS.generation(RUN.generation - 1)
SHARDS = [f"{shard:04d}" for shard in range(RUN.shards)]
WALKERS = [walker.name for walker in base_walkers(CONFIG)]
WALKERS_RUN = WALKERS + [confirmation_name(walker, k) for k in range(1, RUN.confirmation + 1) for walker in WALKERS]


wildcard_constraints:
    gen=f"{RUN.generation:03d}",  # older generations are plain input files: nothing can make them stale
    shard=r"\d{4}",
    walker="|".join(re.escape(walker) for walker in WALKERS_RUN),


def earlier(name: str) -> list[Path]:
    """The file `name` (an attribute of GenerationPaths) of each earlier generation."""
    return [getattr(PATHS.generation(number), name) for number in range(RUN.generation)]


def job_log(rule: str) -> Path:
    return Path("logs") / "gen_{gen}" / f"{rule}.log"


def job_benchmark(rule: str) -> Path:
    return Path("logs") / "gen_{gen}" / f"{rule}.benchmark.tsv"


# Not in onstart, which a call that has nothing to do never reaches.
if RUN.message and workflow.is_main_process:
    print(RUN.message, file=sys.stderr)
