"""The page of the campaign."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.dashboard import write_dashboard
from mlip_auto.joblog import run_job
from mlip_auto.paths import CampaignPaths

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]):
        write_dashboard(CampaignPaths(), parse_workflow_config(snakemake.config))


if __name__ == "__main__":
    main(snakemake)
