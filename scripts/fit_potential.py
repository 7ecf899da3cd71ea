"""The potential of a generation, its active set and its errors."""

from pathlib import Path
from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.fit_potential import fit_potential
from mlip_auto.joblog import run_job
from mlip_auto.paths import CampaignPaths, GenerationPaths

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    generation = int(snakemake.wildcards.gen)
    with run_job(snakemake.log[0]) as log:
        metrics = fit_potential(
            parse_workflow_config(snakemake.config),
            generation=generation,
            labels=snakemake.input.labels,
            previous=next(iter(snakemake.input.previous), None),
            previous_active_set=next(iter(snakemake.input.previous_active_set), None),
            reference=snakemake.input.reference,
            scratch=CampaignPaths().work(generation, "training"),
            threads=snakemake.threads,
            output=GenerationPaths(Path(snakemake.output.metrics).parents[1]),
        )
        log.info("rmse %s", metrics["rmse"])


if __name__ == "__main__":
    main(snakemake)
