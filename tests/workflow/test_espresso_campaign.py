"""One generation of the aluminium example with real pw.x, and a second campaign that pays for nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlip_auto.ledger import read_core_hours
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import read_json, read_structures
from mlip_auto.summary import read_records

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "al_espresso.yaml"
STRUCTURES = 8


def run_one_generation(root: Path, store: Path, pseudo_folder: Path, **dft: object) -> CampaignPaths:
    content = yaml.safe_load(EXAMPLE.read_text())
    content["initial"]["structures"][0]["count"] = STRUCTURES
    content["dft"] |= {"store": str(store), "pseudo_folder": str(pseudo_folder), "structures_per_shard": 4, **dft}
    content["exploration"]["steps"] = 100
    content["loop"] = {"max_generations": 1, "confirmations": 0}
    root.mkdir()
    (root / "config.yaml").write_text(yaml.safe_dump(content))
    command = [Path(sys.executable).with_name("mlip-auto"), "run", "--cores", "2", "--directory", root]
    command += ["--configfile", root / "config.yaml"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode in (0, 3), done.stdout
    return CampaignPaths(root)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shared") / "store"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory, store, pw_x) -> CampaignPaths:
    return run_one_generation(tmp_path_factory.mktemp("first") / "al", store, pw_x)


def test_all_structures_are_labelled_by_pw_x(campaign):
    files = campaign.generation(0)
    records = read_records(files)
    labels = read_structures(files.labels)
    summary = read_json(files.summary)
    assert (summary["selected"], summary["labelled"], summary["failed"]) == (len(labels), len(labels), 0)
    assert 4 <= len(labels) <= STRUCTURES
    for atoms in labels:
        record = records[atoms.info["structure_id"]]
        assert not record["from_store"] and record["seconds"] > 0 and record["scf_steps"] > 1
        # An LDA norm-conserving pseudopotential of 3 electrons: -4.18 Ry an atom, rattled and strained.
        assert atoms.get_potential_energy() / len(atoms) == pytest.approx(-56.9, abs=0.2)
        assert 0.1 < abs(atoms.get_forces()).max() < 5.0
        assert atoms.info["code_version"].startswith("pw.x ")
    paid = sum(record["seconds"] * record["cores"] for record in records.values()) / 3600
    assert sum(read_core_hours(campaign).values()) == pytest.approx(paid)
    assert summary["core_hours_dft"] == pytest.approx(paid, abs=1e-5)
    assert summary["core_hours_dft"] < summary["core_hours"]


def test_the_fit_learnt_from_them(campaign):
    rmse = read_json(campaign.generation(0).metrics)["rmse"]["train"]
    assert rmse["force"] < 0.1  # eV/Å; the forces themselves are ten times as large
    assert campaign.generation(0).potential_yace.exists()


def test_a_second_campaign_needs_no_pw_x_at_all(campaign, store, pw_x, tmp_path):
    """Its command is a program that always fails: every label comes from the store."""
    second = run_one_generation(tmp_path / "al", store, pw_x, command="false")
    records = read_records(second.generation(0))
    assert records.keys() == read_records(campaign.generation(0)).keys()
    assert all(record["from_store"] and record["status"] == "completed" for record in records.values())
    assert sum(read_core_hours(second).values()) == 0
    first_labels, second_labels = (read_structures(paths.generation(0).labels) for paths in (campaign, second))
    for one, other in zip(first_labels, second_labels, strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()
        assert (one.get_forces() == other.get_forces()).all()
