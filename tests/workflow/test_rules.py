"""The wiring: one generation's jobs as Snakemake plans them, and the checks of style and types."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CONFIGS = [REPOSITORY / "config" / "config.yaml", *sorted((REPOSITORY / "config" / "examples").glob("*.yaml"))]


def run(*command: str | Path, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(str(command[0]))
    return subprocess.run(
        [program, *command[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def plan(config: Path, folder: Path, *options: str | Path) -> dict[str, int]:
    """Jobs by rule of a dry run."""
    done = run(
        "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--configfile", config, "-n", *options, folder=folder
    )
    assert done.returncode == 0, done.stdout
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_generation_zero_is_planned_from_the_config_alone(config, tmp_path):
    content = yaml.safe_load(config.read_text())
    jobs = plan(config, tmp_path)
    candidates = sum(family["count"] for family in content["initial"]["structures"])
    selected = min(candidates, content["selection"]["max_structures"])
    runs = sum(1 if "stages" in walker else len(walker["temperatures"]) for walker in content["exploration"]["walkers"])
    assert jobs["label_structures"] == -(-selected // content["dft"]["structures_per_shard"])
    assert jobs["run_md"] == runs
    assert jobs.get("make_reference", 0) == (runs if "validation" in content else 0)
    assert "collect_candidates" not in jobs


def test_check_passes_the_example_of_stages(tmp_path):
    config = REPOSITORY / "config" / "examples" / "al_melt_quench.yaml"
    done = run("mlip-auto", "check", "--configfile", config, folder=tmp_path)
    assert done.returncode == 0 and "warning" not in done.stdout.lower(), done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_local_and_the_slurm_profile_plan_the_same_jobs(tmp_path):
    config = CONFIGS[0]
    local, slurm = (plan(config, tmp_path, "--profile", REPOSITORY / "profiles" / name) for name in ("local", "slurm"))
    assert local == slurm


@pytest.mark.parametrize(
    "command",
    [
        ("snakemake", "--lint", "--configfile", "config/config.yaml", "--directory", "{tmp}"),
        ("snakefmt", "--check", "Snakefile", "rules"),
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_style_and_types(command, tmp_path):
    done = run(*(word.replace("{tmp}", str(tmp_path)) for word in command))
    assert done.returncode == 0, done.stdout


def test_every_rule_has_a_script_of_its_name():
    rules = [
        rule for file in (REPOSITORY / "rules").glob("*.smk") for rule in re.findall(r"rule (\w+):", file.read_text())
    ]
    scripts = [script.stem for script in (REPOSITORY / "scripts").glob("*.py")]
    assert sorted(rules) == sorted(scripts)
