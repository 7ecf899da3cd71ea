"""Candidates of a later generation: what the one before cut out, and what it left without a label."""

from typing import TYPE_CHECKING

from mlip_auto.joblog import run_job
from mlip_auto.paths import GenerationPaths
from mlip_auto.structures import write_structures
from mlip_auto.summary import list_waiting

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]) as log:
        waiting = list_waiting(GenerationPaths.of_file(snakemake.input.summary))
        log.info("%d candidates", len(waiting))
        write_structures(snakemake.output.candidates, waiting)


if __name__ == "__main__":
    main(snakemake)
