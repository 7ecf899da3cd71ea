"""Generation 0: structures from the config alone."""

from typing import TYPE_CHECKING

from mlip_auto.config import parse_workflow_config
from mlip_auto.initial import generate_candidates
from mlip_auto.joblog import run_job
from mlip_auto.oracles import make_calculator
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import write_structures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(snakemake) -> None:
    config = parse_workflow_config(snakemake.config)
    with run_job(snakemake.log[0]) as log:
        folder = CampaignPaths().work(0, "candidates")
        candidates = generate_candidates(config, lambda atoms: make_calculator(config.dft, atoms, folder))
        log.info("%d candidates", len(candidates))
        write_structures(snakemake.output.candidates, candidates)


if __name__ == "__main__":
    main(snakemake)
