"""The loop of an example to its end, each label, fit and MD a job of Slurm."""

import re
from collections import Counter

import yaml

from campaign import ROOT
from mlip_auto.structures import read_json

EXAMPLE = ROOT / "config" / "examples" / "al_emt.yaml"


def test_the_aluminium_example_converges_on_slurm(slurm, make_campaign):
    campaign = make_campaign(EXAMPLE)
    campaign.patience = 850  # twice that for the whole campaign, within the test's own time
    code, output = campaign.finish()
    assert code == 0, output
    assert output.splitlines()[-1].startswith("Converged in generation"), output

    jobs = slurm.list_jobs(campaign.root)
    summaries = [read_json(file) for file in sorted(campaign.paths.results.glob("gen_*/summary.json"))]
    assert {job.state for job in jobs} == {"COMPLETED"}
    name = yaml.safe_load(EXAMPLE.read_text())["name"]
    by_rule = Counter()
    for job in jobs:
        found = re.match(rf"{name}_g(\d{{3}})_", job.name)
        assert found, f"{job.name} does not begin with the campaign's name and generation"
        by_rule[job.rule, int(found[1])] += 1
    for summary in summaries:
        generation = summary["generation"]
        records = campaign.paths.generation(generation).list_shard_records()
        assert by_rule["label_structures", generation] == len(records) > 0
        assert by_rule["fit_potential", generation] == 1
        # Confirmations are walkers of the generation too.
        assert by_rule["run_md", generation] == len(summary["walkers"]) >= 2
    assert by_rule["run_md", summaries[-1]["generation"]] == 2 * (1 + summaries[-1]["confirmations_done"])
