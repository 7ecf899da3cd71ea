"""The database of all structures, made anew from the generations' files."""

from typing import TYPE_CHECKING

from mlip_auto.database import DatabaseManager
from mlip_auto.joblog import run_job
from mlip_auto.paths import CampaignPaths

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    with run_job(snakemake.log[0]):
        DatabaseManager(CampaignPaths()).rebuild()


if __name__ == "__main__":
    main(snakemake)
