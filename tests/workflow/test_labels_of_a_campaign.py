"""Labels over a whole campaign: shared through the store, labelled anew with other settings, limited in cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlip_auto.config import load_config
from mlip_auto.ledger import read_core_hours
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.paths import CampaignPaths
from mlip_auto.state import read_summaries
from mlip_auto.store import LabelStore, open_stores
from mlip_auto.structures import read_json, read_structures
from mlip_auto.summary import read_records

pytestmark = pytest.mark.slow

TINY = Path(__file__).with_name("tiny.yaml")
GENERATIONS = 2


class Campaign:
    """tiny.yaml in a folder of its own, with some keys of `dft` and `training.basis` changed."""

    def __init__(self, root: Path, store: Path, **basis: object):
        self.root, self.store, self.basis = root, store, basis
        self.config = root / "config.yaml"
        self.paths = CampaignPaths(root)
        root.mkdir()

    def run(self, *arguments: str, **dft: object) -> subprocess.CompletedProcess[str]:
        content = yaml.safe_load(TINY.read_text())
        content["dft"] |= {"store": str(self.store), **dft}
        content["training"]["basis"] |= self.basis
        self.config.write_text(yaml.safe_dump(content))
        return self.command("run", "--cores", "2", *arguments)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("mlip-auto"), *arguments]
        command += ["--configfile", self.config, "--directory", self.root]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def status(self) -> dict:
        return json.loads(self.command("status", "--json").stdout)

    def records(self) -> list[dict]:
        return [
            record for number in range(GENERATIONS) for record in read_records(self.paths.generation(number)).values()
        ]

    def labels(self) -> list:
        return [
            atoms for number in range(GENERATIONS) for atoms in read_structures(self.paths.generation(number).labels)
        ]


def test_a_second_campaign_over_the_same_structures_runs_no_scf(tmp_path):
    store = tmp_path / "shared"
    first, second = Campaign(tmp_path / "first", store), Campaign(tmp_path / "second", store)
    done = first.run()
    assert done.returncode == 3, done.stdout
    assert not any(record["from_store"] for record in first.records())
    files = {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in store.rglob("*.json")}
    done = second.run()
    assert done.returncode == 3, done.stdout
    assert len(second.records()) == len(first.records()) == len(files)
    assert all(record["from_store"] for record in second.records())
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) for file in files} == files
    assert sum(read_core_hours(first.paths).values()) > 0
    assert sum(read_core_hours(second.paths).values()) == 0
    assert [summary["core_hours_dft"] for summary in read_summaries(second.paths)] == [0.0] * GENERATIONS
    for one, other in zip(first.labels(), second.labels(), strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()


def test_changed_settings_stop_the_campaign_and_relabel_goes_on(tmp_path):
    campaign = Campaign(tmp_path / "campaign", tmp_path / "store")
    assert campaign.run().returncode == 3
    old = compute_settings_hash(load_config(campaign.config).dft)
    old_labels = {atoms.info["structure_id"]: atoms for atoms in campaign.labels()}
    before = {file: file.stat().st_mtime_ns for file in campaign.paths.results.rglob("*") if file.is_file()}
    other = {"parameters": {"asap_cutoff": True}}

    refused = campaign.run(**other)
    assert refused.returncode == 1
    new = compute_settings_hash(load_config(campaign.config).dft)
    assert f"settings {old[:12]} -> {new[:12]}: dft.parameters.asap_cutoff: not given -> True" in refused.stdout
    assert "mlip-auto run --relabel" in refused.stdout
    assert {file: file.stat().st_mtime_ns for file in before} == before

    limited = campaign.run("--relabel", max_core_hours=1e-9, **other)
    assert limited.returncode == 3, limited.stdout
    assert "structures of generation 0 are not labelled anew (dft.max_core_hours" in limited.stdout.splitlines()[-1]

    done = campaign.run("--relabel", **other)
    assert done.returncode == 3, done.stdout
    assert "gen 0  labelling anew" in done.stdout
    labels = campaign.labels()
    assert {atoms.info["settings_hash"] for atoms in labels} == {new}
    assert {atoms.info["structure_id"] for atoms in labels} >= old_labels.keys() - failed(campaign)
    assert any(
        atoms.get_potential_energy() != old_labels[atoms.info["structure_id"]].get_potential_energy()
        for atoms in labels
        if atoms.info["structure_id"] in old_labels
    )
    last = campaign.paths.generation(GENERATIONS - 1)
    assert read_json(last.metrics)["settings_hash"] == read_json(last.summary)["settings_hash"] == new
    assert [store.settings_hash for store in open_stores(campaign.store)] == sorted([old, new])
    assert len(LabelStore(campaign.store, old).files()) == len(old_labels)


def failed(campaign: Campaign) -> set[str]:
    return {
        identifier
        for number in range(GENERATIONS)
        for identifier, record in read_records(campaign.paths.generation(number)).items()
        if record["status"] == "failed"
    }


def test_the_limit_of_core_hours_stops_the_loop_with_what_it_has(tmp_path):
    campaign = Campaign(tmp_path / "campaign", tmp_path / "store")
    limit = 2e-5  # 0.07 s: some of the eleven labels of generation 0
    stopped = campaign.run(max_core_hours=limit)
    assert stopped.returncode == 3, stopped.stdout
    assert f"dft.max_core_hours ({limit:g}) reached" in stopped.stdout
    (summary,) = read_summaries(campaign.paths)
    assert summary["decision"] == "stopped" and "dft.max_core_hours" in summary["reason"]
    assert 0 < summary["labelled"] < summary["selected"]
    assert summary["pending"] == summary["selected"] - summary["labelled"]
    assert campaign.paths.generation(0).potential_yace.exists()
    status = campaign.status()
    assert (status["phase"], status["max_core_hours"]) == ("STOPPED", limit)
    assert sum(status["core_hours_dft"].values()) >= limit
    shown = campaign.command("status").stdout
    assert f"of {limit:g} core-hours" in shown

    raised = campaign.run(max_core_hours=1.0)
    assert raised.returncode == 3, raised.stdout
    assert "loop.max_generations (2) reached" in raised.stdout
    assert len(read_summaries(campaign.paths)) == GENERATIONS
    records = read_records(campaign.paths.generation(0))
    pending = {identifier for identifier, record in records.items() if record["status"] == "pending"}
    assert len(pending) == summary["pending"] > 0
    assert pending <= {atoms.info["structure_id"] for atoms in read_structures(campaign.paths.generation(1).candidates)}
    spent = sum(record["seconds"] * record["cores"] for record in campaign.records() if not record["from_store"]) / 3600
    assert sum(read_core_hours(campaign.paths).values()) == pytest.approx(spent)


def test_a_limit_too_low_for_a_first_fit_stops_cleanly_too(tmp_path):
    basis = {"nradmax_by_orders": [12, 5, 3, 2], "lmax_by_orders": [0, 4, 3, 1]}
    campaign = Campaign(tmp_path / "campaign", tmp_path / "store", number_of_functions_per_element=100, **basis)
    stopped = campaign.run(max_core_hours=1e-9)
    assert stopped.returncode == 3, stopped.stdout
    assert "too few to fit 100 functions" in stopped.stdout.splitlines()[-1]
    again = campaign.run(max_core_hours=1e-9)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (3, stopped.stdout.splitlines()[-1])
    raised = campaign.run(max_core_hours=1.0)
    assert raised.returncode == 3, raised.stdout
    assert "loop.max_generations (2) reached" in raised.stdout
