"""The shipped Snakemake profiles: Snakemake itself takes them, and they name rules that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlip_auto.profiles import link_profiles

ROOT = Path(__file__).parents[2]

SNAKEFILE = """
rule all:
    input: "labels"

rule label_structures:
    output: "labels"
    shell: "touch {output}"
"""


def load_profile(name: str) -> dict:
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())


def dry_run(folder: Path, profile: str, *options: str) -> str:
    (folder / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--profile", str(ROOT / "profiles" / profile), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_snakemake_takes_the_local_profile(tmp_path):
    assert "rule label_structures" in dry_run(tmp_path, "local")


def test_slurm_resources_of_a_rule_reach_its_job(tmp_path):
    job = re.search(r"resources: (.*)", dry_run(tmp_path, "slurm", "--verbose").partition("rule label_structures")[2])
    assert job is not None
    assert {"mem_mb=8000", "runtime=240"} <= set(job[1].split(", "))


def test_set_resources_names_rules_that_exist():
    rules = {
        name
        for path in (ROOT / "rules").glob("*.smk")
        for name in re.findall(r"^\s*rule (\w+):", path.read_text(), re.M)
    }
    assert set(load_profile("slurm")["set-resources"]) <= rules


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_finished_work_is_not_made_anew_for_code_or_parameters(name):
    profile = load_profile(name)
    assert profile["rerun-triggers"] == ["mtime", "input"]
    assert profile["rerun-incomplete"] is True
    assert profile["scheduler"] == "greedy"


def test_every_value_of_a_profile_has_a_comment_above():
    for name in ("local", "slurm"):
        lines = (ROOT / "profiles" / name / "config.yaml").read_text().splitlines()
        bare = [
            line
            for above, line in zip(["", *lines], lines, strict=False)
            if re.match(r"[a-z]", line) and not above.startswith("#")
        ]
        assert bare in ([], ["executor: slurm"])


def test_linked_profiles_are_found_by_their_name_and_replace_no_one_s_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "snakemake" / "local"
    own.mkdir(parents=True)
    own.joinpath("config.yaml").write_text("cores: 1\n")

    lines = link_profiles()

    assert len(lines) == 2
    assert str(own) in lines[0] and "stays" in lines[0]
    assert (own / "config.yaml").read_text() == "cores: 1\n"
    link = tmp_path / "snakemake" / "slurm"
    assert lines[1].startswith(f"Linked {link}")
    assert link.resolve() == ROOT / "profiles" / "slurm"
    assert len(link_profiles()) == 1  # a link of ours is no news

    work = tmp_path / "work"
    work.mkdir()
    (work / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--profile", "slurm"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "slurm" in done.stdout + done.stderr
