"""The wiring: one generation's jobs as Snakemake plans them, and the checks of style and types."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from example_structures import make_structures
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import read_structures, write_structures

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


def count_files_of_labels(root: Path, structures: int) -> Counter[str]:
    """Files by top folder after so many structures were labelled in two shards."""
    root.mkdir()
    config = yaml.safe_load((REPOSITORY / "tests" / "workflow" / "tiny.yaml").read_text())
    config["initial"]["structures"][0]["count"] = config["selection"]["max_structures"] = structures
    config["dft"]["structures_per_shard"] = structures // 2
    (root / "tiny.yaml").write_text(yaml.safe_dump(config))
    files = CampaignPaths().generation(0)
    write_structures(root / files.selected, make_structures(structures))
    command = ["snakemake", files.labels, "--cores", "2", "--allowed-rules", "label_structures", "collect_labels"]
    done = run(*command, "--snakefile", REPOSITORY / "Snakefile", "--configfile", "tiny.yaml", folder=root)
    assert done.returncode == 0, done.stdout
    assert len(read_structures(root / files.labels)) == structures
    return Counter(file.relative_to(root).parts[0] for file in root.rglob("*") if file.is_file())


@pytest.mark.slow
def test_the_number_of_files_goes_with_shards_and_not_with_structures(tmp_path):
    few, many = (count_files_of_labels(tmp_path / str(structures), structures) for structures in (4, 60))
    assert (few.pop("store"), many.pop("store")) == (4, 60)  # the store alone has a file a label
    assert few == many


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
