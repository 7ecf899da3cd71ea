"""The grand test: from zero data to a confirmed potential on aluminium, every part real."""

import subprocess
import sys
import zipfile
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.units import fs
from pyace.basis import BBasisConfiguration

from mlip_auto.ace import compute_gamma, load_active_set
from mlip_auto.config import load_config
from mlip_auto.lammps_output import read_halt, read_last_frames
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import is_held_out, read_json, read_structures
from mlip_auto.training import compute_rmse, predict_labels

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "config" / "examples" / "al_emt.yaml"


def run(program: str, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def campaign(tmp_path_factory) -> CampaignPaths:
    folder = tmp_path_factory.mktemp("al_emt")
    done = run("mlip-auto", "run", "--configfile", CONFIG, "--cores", "2", folder=folder)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert "clean runs with fresh velocity seeds: 2" in done.stdout
    return CampaignPaths(folder)


@pytest.fixture(scope="module")
def summaries(campaign) -> list[dict]:
    return [read_json(file) for file in sorted(campaign.results.glob("gen_*/summary.json"))]


def test_phases_follow_each_other(campaign, summaries):
    """Each file is older than what was made from it, in each generation and from one to the next."""
    times = []
    for number, summary in enumerate(summaries):
        files = campaign.generation(number)
        steps = [files.candidates, files.selected, files.shard_record("0000"), files.labels, files.potential]
        steps += [files.walker("md_900K").outcome, files.extracted, files.summary]
        assert summary["generation"] == number
        times += [file.stat().st_mtime_ns for file in steps]
    assert len(summaries) >= 2
    assert times == sorted(times)


def test_every_later_structure_comes_from_a_halt(campaign, summaries):
    for number in range(1, len(summaries)):
        halted = {
            name: walker["step"]
            for name, walker in summaries[number - 1]["walkers"].items()
            if walker["outcome"] == "halted"
        }
        assert halted
        for atoms in read_structures(campaign.generation(number).selected):
            assert atoms.info["config_type"] == "active_learning"
            assert atoms.info["generation"] == number - 1
            assert atoms.info["step"] <= halted[atoms.info["walker"]]
            assert atoms.info["gamma"] > 1
            assert atoms.info["cut_mode"] == "box"
            assert len(atoms) == 108
            assert atoms.arrays["force_mask"].all()
            assert atoms.info["energy_weight"] == 1


def test_md_halted_on_gamma_and_in_the_end_did_not(campaign, summaries):
    """gamma of the halting frame is above the threshold by python-ace's own evaluation, too."""
    threshold = load_config(CONFIG).exploration.uncertainty_threshold
    halts = [
        (number, name)
        for number, summary in enumerate(summaries)
        for name, walker in summary["walkers"].items()
        if walker["outcome"] == "halted"
    ]
    assert halts
    for number, name in halts:
        files = campaign.generation(number)
        outcome = summaries[number]["walkers"][name]
        halt = read_halt(files.walker(name).log)
        assert halt is not None
        assert (halt.step, outcome["outcome"]) == (outcome["step"], "halted")
        assert outcome["step"] <= outcome["steps"]
        (frame,) = read_last_frames(files.walker(name).dump)
        basis = BBasisConfiguration(str(files.potential))
        gamma = compute_gamma(basis, load_active_set(files.active_set), [frame])[0]
        assert gamma.argmax() == outcome["atom"]
        assert gamma.max() > threshold
        assert gamma.max() == pytest.approx(halt.gamma, rel=1e-4)

    last = summaries[-1]
    assert last["decision"] == "converged"
    names = {f"md_{temperature}K{suffix}" for temperature in (300, 900) for suffix in ("", "_c1", "_c2")}
    assert set(last["walkers"]) == names
    assert {walker["outcome"] for walker in last["walkers"].values()} == {"completed"}
    assert all(walker["step"] == walker["steps"] for walker in last["walkers"].values())
    assert len({walker["seed"] for walker in last["walkers"].values()}) == len(names)


def test_each_generation_was_really_fitted(campaign, summaries):
    """The metrics are those of the potential on the labels; the labels that are held out are in neither part of it."""
    config = load_config(CONFIG)
    previous = np.zeros(0)
    for number, summary in enumerate(summaries):
        files = campaign.generation(number)
        labels = [atoms for n in range(number + 1) for atoms in read_structures(campaign.generation(n).labels)]
        fraction = config.training.held_out_fraction
        train = [atoms for atoms in labels if not is_held_out(atoms.info["structure_id"], fraction)]
        metrics = read_json(files.metrics)
        assert metrics["n_train"] == len(train)
        basis = BBasisConfiguration(str(files.potential))
        errors = compute_rmse(predict_labels(basis, train, metrics["reference_energies"]))
        assert errors == pytest.approx(summary["rmse"]["train"], rel=1e-6)
        coefficients = np.array(basis.get_all_coeffs())
        assert not np.array_equal(coefficients, previous)
        previous = coefficients


def test_true_error_falls(campaign, summaries):
    """Force RMSE on EMT MD frames at 900 K that this test makes itself, below that of generation 0."""
    rng = np.random.default_rng(99)
    atoms = bulk("Al", cubic=True, a=4.05) * (3, 3, 3)
    atoms.calc = EMT()
    thermalize_momenta(atoms, temperature_K=1800, rng=rng)
    dynamics = Langevin(atoms, 2 * fs, temperature_K=900, friction=0.05 / fs, fixcm=False, rng=rng)
    dynamics.run(150)
    frames = []
    for _ in range(6):
        dynamics.run(30)
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(frame)
    errors = []
    for number in (0, len(summaries) - 1):
        files = campaign.generation(number)
        reference_energies = read_json(files.metrics)["reference_energies"]
        basis = BBasisConfiguration(str(files.potential))
        errors.append(compute_rmse(predict_labels(basis, frames, reference_energies))["force"])
    print(f"true force RMSE at 900 K: generation 0 {1e3 * errors[0]:.1f}, last {1e3 * errors[1]:.1f} meV/Å")
    assert errors[1] < errors[0]
    assert errors[1] < 0.025
    first, last = (summary["rmse"]["true"]["md_900K"]["force"] for summary in (summaries[0], summaries[-1]))
    assert last < first


def test_database_has_every_structure(campaign, summaries):
    with ase.db.connect(campaign.database) as database:
        rows = list(database.select())
        assert len(rows) == sum(summary["selected"] for summary in summaries)
        assert {row.status for row in rows} == {"completed"}
        active = list(database.select(config_type="active_learning"))
        assert len(active) == sum(summary["selected"] for summary in summaries[1:]) > 0
        assert all(row.gamma > 1 and row.generation >= 1 for row in active)
        assert database.count(config_type="initial") == summaries[0]["selected"]


def test_a_converged_campaign_says_so_and_does_nothing(campaign):
    folder = campaign.root
    before = {file: file.stat().st_mtime_ns for file in campaign.results.rglob("*") if file.is_file()}
    snakemake = ["--snakefile", REPOSITORY / "Snakefile", "--configfile", CONFIG, "--cores", "1"]
    plain = run("snakemake", *snakemake, folder=folder)
    assert plain.returncode == 0, plain.stdout
    assert "al-emt has converged" in plain.stdout
    again = run("mlip-auto", "run", "--configfile", CONFIG, folder=folder)
    assert again.returncode == 0, again.stdout
    assert "Converged" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in campaign.results.rglob("*") if file.is_file()} == before


def test_report_holds_all_generations(campaign, summaries):
    done = run("mlip-auto", "report", "--configfile", CONFIG, folder=campaign.root)
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(campaign.root / "report.zip") as report:
        names = report.namelist()
        page = next(report.read(name).decode() for name in names if name.endswith("report.html"))
        assert sum(name.endswith("dashboard.html") for name in names) == 1
        assert sum(name.endswith("generation.svg") for name in names) == len(summaries)
    for number in range(len(summaries)):
        assert f"{number:03d}" in page
