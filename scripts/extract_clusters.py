"""Cuts from the frames in which MD halted."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.exploration import extract_generation
from mlip_auto.joblog import run_job
from mlip_auto.paths import GenerationPaths
from mlip_auto.structures import write_json, write_structures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    files = GenerationPaths.of_file(snakemake.output.extracted)
    with run_job(snakemake.log[0]) as log:
        cuts, refusals = extract_generation(
            parse_workflow_config(snakemake.config),
            int(snakemake.wildcards.gen),
            {walker: files.walker(walker) for walker in snakemake.params.walkers},
            snakemake.input.potential,
            snakemake.input.active_set,
        )
        for refusal in refusals:
            log.warning("not cut: %s", refusal)
        log.info("%d structures cut", len(cuts))
        write_json(snakemake.output.cuts_refused, refusals)
        write_structures(snakemake.output.extracted, cuts)


if __name__ == "__main__":
    main(snakemake)
