"""`mlip-auto doctor`: all parts fine where they are, and a broken one named with its cure."""

import subprocess
import sys
from pathlib import Path

import pytest
import snakemake.cli  # noqa: F401 - looks for a shell on PATH when imported, which a test below empties
import yaml

from mlip_auto import doctor
from mlip_auto.config import load_config, parse_config
from mlip_auto.snakemake_run import SnakemakeCall

REPO = Path(__file__).parents[2]
TINY = REPO / "tests" / "workflow" / "tiny.yaml"
PARTS = ["versions", "disk", "config", "oracle", "fit", "MD", "pacemaker", "profile", "scheduler"]


def run_doctor(folder: Path, config: Path = TINY, *arguments: object) -> tuple[int, dict[str, str], str]:
    """Exit code, the lines by part (verdict first), stderr."""
    command = [Path(sys.executable).with_name("mlip-auto"), "doctor", "--configfile", config, "--directory", folder]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    return done.returncode, {line[1]: f"{line[0]} {line[2]}" for line in lines if line[1] in PARTS}, done.stderr


def write_config(folder: Path, source: Path = TINY, **dft: object) -> Path:
    content = yaml.safe_load(source.read_text())
    content["dft"] |= dft
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_all_parts_of_the_tiny_campaign_work(tmp_path):
    code, lines, errors = run_doctor(tmp_path)
    assert (code, errors) == (0, "")
    assert list(lines) == PARTS
    assert {part: line.split()[0] for part, line in lines.items() if line.split()[0] != "ok"}.keys() <= {
        "versions",
        "disk",
    }
    assert "Al4" in lines["oracle"] and "20 steps" in lines["MD"]
    assert float(lines["MD"].split("gamma ")[1]) > 0
    assert {path.name for path in tmp_path.iterdir()} <= {".snakemake"}


def test_a_keyword_that_does_not_exist_is_named_with_the_cure(tmp_path):
    code, lines, errors = run_doctor(tmp_path, write_config(tmp_path, parameters={"asap_cutof": True}))
    assert code == 1
    wrong = "dft.parameters.asap_cutof: emt has no such keyword and would ignore it; allowed: asap_cutoff"
    assert lines["oracle"].startswith(f"failed {wrong}") and "Cure: correct the `dft` section" in lines["oracle"]
    assert lines["config"].startswith(f"failed {wrong}")
    assert lines["MD"].startswith("ok ")
    assert "Not usable: config, oracle." in errors


def test_a_profile_that_snakemake_cannot_read_is_named(tmp_path):
    profile = tmp_path / "site"
    profile.mkdir()
    (profile / "config.yaml").write_text("executor: slurm\nno-such-option: 3\n")
    code, lines, _ = run_doctor(tmp_path, TINY, "--profile", profile)
    assert code == 1
    assert lines["profile"].startswith("failed ") and "no-such-option" in lines["profile"]
    assert f"Cure: correct {profile}" in lines["profile"]


def test_slurm_without_its_programs_is_not_reachable(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(doctor.Fault, match="no sinfo on this machine") as caught:
        doctor.reach_scheduler(SnakemakeCall(TINY, tmp_path, str(REPO / "profiles" / "slurm")))
    assert "login node" in caught.value.cure and not caught.value.usable
    assert doctor.reach_scheduler(SnakemakeCall(TINY, tmp_path)) == "none: executor local"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("ase", "no-such-package"))
    with pytest.raises(doctor.Fault, match="no-such-package is not installed"):
        doctor.compare_versions()


@pytest.fixture
def alloy():
    content = yaml.safe_load(TINY.read_text())
    content["system"]["elements"] = ["Cu", "Au", "Ni"]
    crystal = {"prototype": "fcc", "a": 3.8, "supercell": [3, 3, 3], "composition": {"Cu": 0.5, "Au": 0.3, "Ni": 0.2}}
    content["initial"]["structures"][0] |= crystal
    content["exploration"]["walkers"][0]["structure"] = crystal
    content["training"]["basis"]["cutoff"] = 6.0
    return parse_config(content)


def test_an_alloy_is_tried_with_all_its_elements(alloy, tmp_path):
    cell = doctor.find_smallest_cell(alloy, tmp_path)
    assert len(cell) == 4 and set(cell.symbols) == {"Cu", "Au", "Ni"}
    assert "largest force component" in doctor.label_smallest_cell(alloy, tmp_path, tmp_path)
    doctor.fit_tiny(alloy, tmp_path)
    assert "20 steps" in doctor.run_tiny_md(alloy, tmp_path)


@pytest.mark.parametrize("launcher", ["", "mpirun.openmpi --allow-run-as-root --oversubscribe -np {threads} "])
def test_pw_x_runs_on_as_many_processes_as_asked_for(pw_x, tmp_path, launcher):
    config = load_espresso(pw_x, tmp_path, f"{launcher}pw.x")
    said = doctor.label_smallest_cell(config, tmp_path, tmp_path)
    assert said.startswith("pw.x ") and said.endswith("on 2 MPI processes" if launcher else "on 1 MPI process")


def test_the_launcher_of_another_mpi_is_seen_through(pw_x, tmp_path):
    """The environment's own mpirun is MPICH's; Debian's pw.x is built with Open MPI."""
    mpich = Path(sys.executable).with_name("mpirun")
    config = load_espresso(pw_x, tmp_path, f"{mpich} -np {{threads}} pw.x")
    with pytest.raises(doctor.Fault, match=r"copies side by side.*take mpirun.openmpi"):
        doctor.label_smallest_cell(config, tmp_path, tmp_path)


def load_espresso(pw_x: Path, folder: Path, command: str):
    example = REPO / "config" / "examples" / "al_espresso.yaml"
    return load_config(write_config(folder, example, pseudo_folder=str(pw_x), command=command, threads=2))


def test_a_wrong_number_of_processes_is_a_fault(pw_x, tmp_path):
    """One pw.x that runs alone under a command that asks for two."""
    dft = load_espresso(pw_x, tmp_path, "srun -n 2 pw.x").dft
    with pytest.raises(doctor.Fault, match=r"asks for 2 MPI processes, pw\.x ran on 1"):
        doctor.check_processes(dft, "     Serial version\n")
    running = "     Parallel version (MPI), running on     2 processors\n"
    assert doctor.check_processes(dft, running) == ", on 2 MPI processes"


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (None, None),
        ("pw.x -npool 2 -nk 4", None),
        ("mpirun -np {threads} pw.x -npool 2", 2),
        ("srun --ntasks=8 pw.x", 8),
        ("srun pw.x", None),
    ],
)
def test_the_number_asked_for_is_read_off_the_command(pw_x, tmp_path, command, asked):
    dft = load_espresso(pw_x, tmp_path, "pw.x").dft
    assert doctor.count_asked_processes(dft.model_copy(update={"command": command})) == asked
