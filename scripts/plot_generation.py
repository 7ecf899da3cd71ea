"""One figure of a generation for the report."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.generation_report import write_generation_figure
from mlip_auto.joblog import run_job
from mlip_auto.paths import GenerationPaths

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]):
        write_generation_figure(
            GenerationPaths.of_file(snakemake.output.figure), parse_workflow_config(snakemake.config)
        )


if __name__ == "__main__":
    main(snakemake)
