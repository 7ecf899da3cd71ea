"""MD frames of the oracle itself at a walker's conditions: the exact reference."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.joblog import run_job
from mlip_auto.paths import CampaignPaths
from mlip_auto.reference import make_reference
from mlip_auto.structures import write_structures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]) as log:
        walker = snakemake.wildcards.walker
        scratch = CampaignPaths().work(0, f"reference_{walker}")
        frames = make_reference(parse_workflow_config(snakemake.config), walker, scratch)
        log.info("%d frames", len(frames))
        write_structures(snakemake.output.frames, frames)


if __name__ == "__main__":
    main(snakemake)
