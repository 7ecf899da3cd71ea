"""The exported potential, loaded as its own card says, gives what the campaign predicted."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data
from pyace import PyACECalculator

from mlip_auto.lammps_output import read_thermo
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import get_force_mask, read_json, read_structures

pytestmark = pytest.mark.slow

TINY = Path(__file__).with_name("tiny.yaml")


class Campaign:
    """tiny.yaml in one generation whose MD never halts."""

    def __init__(self, root: Path):
        self.root, self.config = root, root / "config.yaml"
        self.paths = CampaignPaths(root)
        root.mkdir()
        self.ask_for(confirmations=0)

    def ask_for(self, confirmations: int) -> None:
        content = yaml.safe_load(TINY.read_text())
        content["exploration"] |= {"uncertainty_threshold": 1000.0, "steps": 20}
        content["loop"] = {"max_generations": 1, "confirmations": confirmations}
        self.config.write_text(yaml.safe_dump(content))

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("mlip-auto"), *map(str, arguments)]
        command += ["--configfile", self.config, "--directory", self.root]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory) -> Campaign:
    campaign = Campaign(tmp_path_factory.mktemp("export") / "campaign")
    done = campaign.command("run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    return campaign


@pytest.fixture(scope="module")
def exported(campaign) -> Path:
    folder = campaign.root.parent / "al_potential"
    done = campaign.command("export", folder)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="module")
def labels(exported) -> list[Atoms]:
    return read_structures(exported / "training_set.extxyz")


def read_block(folder: Path, language: str, number: int = 0) -> str:
    """A block of code of the card."""
    return re.findall(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[number]


def read_reference_energies(folder: Path) -> dict[str, float]:
    rows = re.findall(r"^\| ([A-Z][a-z]?) \| (-?\d+\.\d+) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    return {element: float(energy) for element, energy in rows}


def test_the_folder_holds_the_files_of_the_last_generation(campaign, exported, labels):
    training = campaign.paths.generation(0).training
    for name in ("potential.yace", "potential.yaml", "potential.asi", "metrics.json"):
        assert (exported / name).read_bytes() == (training / name).read_bytes()
    assert len(labels) == len(read_structures(campaign.paths.generation(0).labels))
    assert [path for path in exported.parent.iterdir() if path.name.startswith(".")] == []


def test_the_ase_lines_of_the_card_give_the_campaigns_predictions(exported, labels, monkeypatch):
    monkeypatch.chdir(exported)
    reference = read_reference_energies(exported)
    lines = read_block(exported, "python")
    assert len(lines.splitlines()) == 3 and set(reference) == {"Al"}
    for label in labels:
        atoms = label.copy()
        exec(lines, {"atoms": atoms})
        energy = atoms.get_potential_energy() + sum(reference[symbol] for symbol in atoms.symbols)
        assert energy == pytest.approx(label.info["predicted_energy"], abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), label.arrays["predicted_forces"], atol=1e-6)
        gamma = np.array(atoms.calc.results["gamma"])
        assert gamma.shape == (len(atoms),) and gamma.min() > 0
        if not label.info["held_out"]:
            assert gamma[get_force_mask(label)].max() < 1.01


def test_the_yace_file_is_the_same_potential(exported, labels):
    for label in labels[:2]:
        atoms = label.copy()
        atoms.calc = PyACECalculator(str(exported / "potential.yace"))
        np.testing.assert_allclose(atoms.get_forces(), label.arrays["predicted_forces"], atol=1e-5)


def test_the_lammps_lines_of_the_card_run(exported, labels, tmp_path):
    """In the engine of the campaign; `pair_style pace` itself needs a LAMMPS with ML-PACE."""
    label = labels[0]
    atoms = Atoms(label.numbers, positions=label.positions, cell=label.cell, pbc=True)
    for name in ("potential.yaml", "potential.asi"):
        (tmp_path / name).symlink_to(exported / name)
    with (tmp_path / "start.data").open("w") as file:
        write_lammps_data(file, atoms, specorder=["Al"], masses=True, atom_style="atomic", units="metal")
    lines = read_block(exported, "lammps", 1)
    (tmp_path / "in.lammps").write_text(
        f"units metal\natom_style atomic\nboundary p p p\nread_data start.data\n{lines}"
        "compute gamma all reduce max f_gamma\nvariable gamma_max equal c_gamma\nfix md all nve\n"
        "thermo_style custom step time pe v_gamma_max\nthermo_modify format float %.12g\nrun 0\n"
    )
    engine = [sys.executable, "-m", "mlip_auto.lammps_library", "-in", "in.lammps", "-log", "log.lammps"]
    subprocess.run(engine, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    thermo = read_thermo(tmp_path / "log.lammps")
    reference = read_reference_energies(exported)["Al"] * len(atoms)
    assert float(thermo["PotEng"].iloc[0]) + reference == pytest.approx(label.info["predicted_energy"], abs=1e-5)
    assert 0 < float(thermo["v_gamma_max"].iloc[0]) < 1.01
    assert read_block(exported, "lammps").splitlines() == ["pair_style pace", "pair_coeff * * potential.yace Al"]


def test_the_chemiscope_file_holds_the_training_set(exported, labels):
    """As chemiscope's viewer reads it: one point a structure, on a map whose two components are uncorrelated."""
    content = json.loads(gzip.decompress((exported / "training_set.json.gz").read_bytes()))
    assert [structure["size"] for structure in content["structures"]] == [len(atoms) for atoms in labels]
    values = {name: found["values"] for name, found in content["properties"].items()}
    assert {len(found) for found in values.values()} == {len(labels)}
    assert values["energy"] == pytest.approx([atoms.get_potential_energy() / len(atoms) for atoms in labels])
    errors = [np.sqrt(np.mean((a.arrays["predicted_forces"] - a.get_forces()) ** 2)) for a in labels]
    assert values["force error"] == pytest.approx(1000 * np.array(errors))
    first, second = np.array(values["PC 1"]), np.array(values["PC 2"])
    assert first.std() >= second.std() > 0 and abs(np.corrcoef(first, second)[0, 1]) < 1e-6


def test_the_card_says_what_the_campaign_measured(campaign, exported):
    card = (exported / "README.md").read_text()
    summary, metrics = (read_json(getattr(campaign.paths.generation(0), name)) for name in ("summary", "metrics"))
    assert "The campaign converged in generation 0" in card and "Not converged" not in card
    for name, run in summary["walkers"].items():
        assert f"| {name} | fcc, 2x2x2 | {run['conditions']} | 0.04 | {run['gamma_max']:.2f} |" in card
    force, energy = (1000 * metrics["rmse"]["train"][key] for key in ("force", "energy"))
    assert f"| training | {energy:.2f} | {force:.1f} |" in card
    assert f"{metrics['n_train']} labels trained on and {metrics['n_held_out']} held out" in card
    assert "halted above 1000" in card and "academic licence" in card and "Basis functions: 30 for Al" in card


def test_an_export_overwrites_nothing(campaign, exported):
    before = (exported / "README.md").read_bytes()
    done = campaign.command("export", exported)
    assert done.returncode == 1 and "exists already" in done.stdout
    assert (exported / "README.md").read_bytes() == before


def test_an_unfinished_campaign_is_refused_unless_told(campaign, exported, tmp_path):
    campaign.ask_for(confirmations=1)
    refused = campaign.command("export", tmp_path / "early")
    assert refused.returncode == 1
    assert "has not converged" in refused.stdout and "--unfinished" in refused.stdout
    assert not (tmp_path / "early").exists()
    told = campaign.command("export", tmp_path / "early", "--unfinished")
    assert told.returncode == 0, told.stdout
    assert "**Not converged.**" in (tmp_path / "early" / "README.md").read_text()


def test_a_campaign_without_a_generation_is_refused(tmp_path):
    empty = Campaign(tmp_path / "empty")
    done = empty.command("export", tmp_path / "potential", "--unfinished")
    assert done.returncode == 1 and "no finished generation" in done.stdout
