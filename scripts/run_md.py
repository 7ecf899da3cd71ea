"""MD of one walker that halts by itself."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.exploration import run_walker
from mlip_auto.joblog import run_job
from mlip_auto.paths import CampaignPaths

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    generation, walker = int(snakemake.wildcards.gen), snakemake.wildcards.walker
    paths = CampaignPaths()
    files = paths.generation(generation)
    before = paths.generation(generation - 1).walker(walker).restart if generation else None
    with run_job(snakemake.log[0]) as log:
        outcome = run_walker(
            parse_workflow_config(snakemake.config),
            generation,
            walker,
            potential=files.potential,
            active_set=files.active_set,
            labels=snakemake.input.labels,
            paths=files.walker(walker),
            scratch=paths.work(generation, f"md/{walker}"),
            previous=before,
            job_minutes=snakemake.resources.get("runtime"),
        )
        log.info("%s: %s", outcome["outcome"], outcome["reason"])


if __name__ == "__main__":
    main(snakemake)
