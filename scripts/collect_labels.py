"""All good labels of a generation; stops when too many failed or when settings are mixed."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.joblog import run_job
from mlip_auto.labelling import collect_labels
from mlip_auto.structures import write_structures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]) as log:
        labels = collect_labels(
            snakemake.input.labels,
            snakemake.input.records,
            snakemake.input.earlier_labels,
            parse_workflow_config(snakemake.config).dft,
        )
        log.info("%d labels", len(labels))
        write_structures(snakemake.output.labels, labels)


if __name__ == "__main__":
    main(snakemake)
