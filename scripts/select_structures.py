"""The D-optimal subset of the candidates."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.joblog import run_job
from mlip_auto.selection import select_from_files
from mlip_auto.structures import read_structures, write_structures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]) as log:
        selected = select_from_files(
            parse_workflow_config(snakemake.config),
            candidates=read_structures(snakemake.input.candidates),
            labels=snakemake.input.labels,
            potential=next(iter(snakemake.input.potential), None),
            active_set=next(iter(snakemake.input.active_set), None),
        )
        for atoms in selected:
            log.info("%s %s: %s", atoms.info["structure_id"][:12], atoms.info["origin"], atoms.info["reason"])
        write_structures(snakemake.output.selected, selected)


if __name__ == "__main__":
    main(snakemake)
