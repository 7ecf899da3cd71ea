"""Energies and forces of one shard."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.joblog import run_job
from mlip_auto.labelling import label_shard
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import write_json, write_structures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]):
        shard = label_shard(
            snakemake.input.selected,
            int(snakemake.wildcards.shard),
            snakemake.params.shards,
            parse_workflow_config(snakemake.config),
            CampaignPaths().work(int(snakemake.wildcards.gen), "dft"),
        )
        write_structures(snakemake.output.labels, shard.labels)
        write_json(snakemake.output.record, shard.content)


if __name__ == "__main__":
    main(snakemake)
