"""Names of Slurm jobs, and what can be known of them without a Slurm; tests/cluster has a real one."""

import re

import pytest

from mlip_auto.slurm import SlurmJob, describe_jobs, name_prefix, was_used


@pytest.mark.parametrize("campaign", ["al_emt", "LiF melt (PBE)", "x" * 80])
def test_the_prefix_of_job_names_is_one_that_the_plugin_takes(campaign):
    prefix = name_prefix(campaign, 12)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,50}", prefix)  # its own pattern
    assert prefix.endswith("_g012")


def test_jobs_are_counted_by_rule():
    jobs = [SlurmJob(str(n), "RUNNING", None, "tiny_g000", rule) for n, rule in enumerate(["run_md", "fit", "run_md"])]
    assert describe_jobs(jobs) == "3 Slurm jobs (1 fit, 2 run_md: 0, 1, 2)"
    assert describe_jobs(jobs[:1]) == "1 Slurm job (1 run_md: 0)"


def test_a_campaign_that_never_saw_slurm_is_not_looked_for_there(tmp_path):
    (tmp_path / ".snakemake").mkdir()
    assert not was_used(tmp_path)
