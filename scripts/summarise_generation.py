"""What the driver decides from."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.joblog import run_job
from mlip_auto.paths import GenerationPaths
from mlip_auto.structures import write_json
from mlip_auto.summary import summarise_generation

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]) as log:
        summary = summarise_generation(
            GenerationPaths.of_file(snakemake.output.summary),
            int(snakemake.wildcards.gen),
            snakemake.params.confirmation,
            snakemake.input.outcomes,
            parse_workflow_config(snakemake.config),
        )
        log.info("decision: %s %s", summary["decision"], summary["reason"])
        write_json(snakemake.output.summary, summary)


if __name__ == "__main__":
    main(snakemake)
