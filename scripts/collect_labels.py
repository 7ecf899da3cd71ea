"""All good labels of a generation; refuses outliers, stops when too many failed or settings are mixed."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.joblog import run_job
from mlip_auto.labelling import collect_labels
from mlip_auto.structures import write_json, write_structures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]) as log:
        collected = collect_labels(
            snakemake.input.labels,
            snakemake.input.records,
            snakemake.input.earlier_labels,
            parse_workflow_config(snakemake.config).dft,
        )
        log.info("%d labels", len(collected.labels))
        for identifier, reason in collected.refused.items():
            log.info("%s refused: %s", identifier[:12], reason)
        write_json(snakemake.output.refused, collected.refused)
        write_structures(snakemake.output.labels, collected.labels)


if __name__ == "__main__":
    main(snakemake)
