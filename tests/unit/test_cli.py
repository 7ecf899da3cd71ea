"""The commands as a user types them, and what the driver makes of Snakemake's output."""

import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from mlip_auto import snakemake_run
from mlip_auto.config import load_config
from mlip_auto.paths import CampaignPaths
from mlip_auto.progress import Failure, Progress, tabulate_generations
from mlip_auto.snakemake_run import CampaignError, SnakemakeCall
from mlip_auto.structures import write_json

REPO = Path(__file__).parents[2]
TINY = REPO / "tests" / "workflow" / "tiny.yaml"


def mlip_auto(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("mlip-auto"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60)


@pytest.fixture
def change(tmp_path):
    """Write tiny.yaml with one key changed (`section.key`) and return its path."""

    def write(key: str, value: object) -> Path:
        content = yaml.safe_load(TINY.read_text())
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section[name]
        section[last] = value
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_check_says_what_a_good_config_does():
    done = mlip_auto("check", "--configfile", TINY)
    assert done.returncode == 0, done.stderr
    for part in ("12 structures of Al", "2 jobs", "md_900K (0.2 ps)", "solver linear", "2 generations"):
        assert part in done.stdout


@pytest.mark.parametrize("command", ["check", "run"])
def test_bad_input_is_refused_with_every_error_before_anything_runs(change, tmp_path, command):
    change("exploration.timestep", -1.0)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    content["selection"]["max_structure"] = 3
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    done = mlip_auto(command, "--configfile", tmp_path / "config.yaml", "--directory", tmp_path)
    assert done.returncode == 2
    assert "2 errors; nothing was run" in done.stderr
    assert "exploration.timestep: found -1.0" in done.stderr
    assert "selection.max_structure: unknown key ('max_structures' was meant?); allowed here: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_errors_that_need_more_than_the_config_are_refused_too(change, tmp_path):
    change("initial.structures", [{"file": "gone.cif", "rattles": [0.1]}])
    done = mlip_auto("run", "--configfile", tmp_path / "config.yaml", "--directory", tmp_path)
    assert done.returncode == 2
    assert "gone.cif" in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert mlip_auto("--version").stdout == f"mlip-auto {project['version']}\n"


def test_a_missing_config_is_named():
    done = mlip_auto("check", "--configfile", "nowhere.yaml")
    assert done.returncode == 2
    assert "nowhere.yaml: 1 error" in done.stderr
    assert "no such file" in done.stderr


SUMMARY = {
    "generation": 0,
    "candidates": 12,
    "selected": 8,
    "labelled": 7,
    "failed": 1,
    "rmse": {
        "train": {"energy": 0.001, "force": 0.02},
        "held_out": None,
        "true": {"md_300K": {"energy": 0.002, "force": 0.03}, "md_900K": {"energy": 0.004, "force": 0.05}},
    },
    "gamma_max": 43.1149,
    "core_hours": 0.01,
    "walkers": {
        "md_300K": {"outcome": "completed", "step": 100, "steps": 100, "atom": 3},
        "md_900K": {"outcome": "halted", "step": 10, "steps": 100, "atom": 29},
    },
    "minutes": 0.46,
    "next_candidates": 1,
    "confirmations_done": 0,
    "decision": "next_generation",
    "reason": "",
}


def finish(root: Path, **changes: object) -> None:
    """The files of one finished generation, as far as the driver looks at them."""
    files = CampaignPaths(root).generation(0)
    for path in (files.selected, files.labels, files.potential, files.active_set, files.extracted):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_json(files.summary, SUMMARY | changes)
    for path in (files.figure, CampaignPaths(root).database, CampaignPaths(root).dashboard):
        path.touch()


def status(root: Path) -> dict:
    done = mlip_auto("status", "--json", "--configfile", TINY, "--directory", root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_status(tmp_path):
    empty = status(tmp_path)
    assert (empty["generation"], empty["phase"], empty["driver"], empty["generations"]) == (0, "GENERATION", None, [])
    finish(tmp_path)
    halted = status(tmp_path)
    assert (halted["generation"], halted["phase"], halted["generations"]) == (1, "GENERATION", [SUMMARY])
    shown = mlip_auto("status", "--configfile", TINY, "--directory", tmp_path).stdout
    assert "tiny: generation 1, phase GENERATION; no driver is running." in shown


CLEAN = {"md_900K": {"outcome": "completed", "step": 100, "steps": 100, "atom": 3}}


def test_a_converged_campaign_starts_nothing(tmp_path):
    finish(tmp_path, walkers=CLEAN, confirmations_done=1)
    done = mlip_auto("run", "--configfile", TINY, "--directory", tmp_path)
    assert done.returncode == 0
    assert "Converged in generation 0 (clean runs with fresh velocity seeds: 1)" in done.stdout
    assert not (tmp_path / "work").exists() and not (tmp_path / ".snakemake").exists()


def test_a_stopped_campaign_says_why(tmp_path):
    finish(tmp_path, next_candidates=0)
    done = mlip_auto("run", "--configfile", TINY, "--directory", tmp_path)
    assert done.returncode == 3
    assert "MD of md_900K still halts, and there is no structure to learn from" in done.stdout


def test_vanished_labels_of_a_finished_generation_are_named(tmp_path):
    finish(tmp_path)
    CampaignPaths(tmp_path).generation(0).labels.unlink()
    done = mlip_auto("run", "--configfile", TINY, "--directory", tmp_path)
    assert done.returncode == 1
    assert "results/gen_000/labels.extxyz" in done.stderr
    assert not (tmp_path / ".snakemake").exists()


def test_report_without_a_generation_is_refused(tmp_path):
    done = mlip_auto("report", "--configfile", TINY, "--directory", tmp_path)
    assert done.returncode == 1
    assert "no finished generation" in done.stderr


def test_a_missing_snakefile_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(snakemake_run, "REPO", tmp_path)
    with pytest.raises(CampaignError, match=r"Snakefile: no such file; .*clone"):
        SnakemakeCall(TINY, tmp_path).command()


def test_the_table_of_a_generation_fits_a_terminal():
    console = Console(file=io.StringIO(), width=80)
    console.print(tabulate_generations([SUMMARY]))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert lines[0] == "gen structures RMSE meV/Å meV/atom gamma MD: steps, outcome min"
    assert lines[1].startswith("0 12 candidates train 20.0 1.0 43.11 md_300K 100/100")
    assert lines[1].endswith("0.5")
    rest = " ".join(lines[2:])
    for part in ("8 selected held out - -", "7 labelled true 50.0 4.0", "1 failed", "md_900K 10/100", "halted"):
        assert part in rest


def test_progress_follows_a_real_snakemake(tmp_path):
    """One line a finished step with its wildcards; of a failed one the rule and the end of its log."""
    (tmp_path / "Snakefile").write_text(
        "rule all:\n    input: 'a_1.txt', 'b.txt'\n"
        "rule make_a:\n    output: 'a_{n}.txt'\n    log: 'logs/a_{n}.log'\n    shell: 'touch {output}'\n"
        "rule make_b:\n    output: 'b.txt'\n    log: 'logs/b.log'\n    shell: 'echo no such basis > {log}; exit 3'\n"
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--keep-going", "--directory", tmp_path]
    command += ["--snakefile", tmp_path / "Snakefile"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ran.returncode == 1
    console = Console(file=io.StringIO(), width=160)
    progress = Progress(3, console, CampaignPaths(tmp_path))
    for line in ran.stdout.splitlines(keepends=True):
        progress.feed(line)
    (shown,) = console.file.getvalue().splitlines()
    assert shown.startswith("gen 3  1/3  make_a n=1  ")
    (failure,) = progress.failures
    assert failure.describe(tmp_path) == f"make_b failed; the end of {tmp_path}/logs/b.log:\n    no such basis"


def test_a_failure_is_told_by_the_message_of_its_error(tmp_path):
    """Of a real error of many lines: the first one, which says what happened, and the last ones; no traceback."""
    program = "raise ValueError('30 labels failed:\\n' + '\\n'.join(f'  label {n}' for n in range(30)))"
    with (tmp_path / "job.log").open("w") as log:
        print("fitted in 3 s", file=log, flush=True)
        assert subprocess.run([sys.executable, "-c", program], stderr=log).returncode == 1
    first, *rest = Failure("collect", "job.log").describe(tmp_path).splitlines()
    assert first == f"collect failed; the end of {tmp_path}/job.log:"
    assert rest == ["    ValueError: 30 labels failed:", *(f"      label {n}" for n in range(16, 30))]


def test_the_example_configs_pass_check():
    for path in (REPO / "config/config.yaml", REPO / "config/examples/al_emt.yaml"):
        assert load_config(path).name
        assert mlip_auto("check", "--configfile", path).returncode == 0
