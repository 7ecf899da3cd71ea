"""The conda files parse and hold the versions of requirements.lock."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def read_lock() -> dict[str, str]:
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", (ROOT / "requirements.lock").read_text(), re.M)
    return {canonicalize_name(name): version for name, version in pins}


def read_pip_pins(name: str) -> dict[str, str]:
    dependencies = yaml.safe_load((ROOT / "envs" / name).read_text())["dependencies"]
    pins = [pin for entry in dependencies if isinstance(entry, dict) for pin in entry["pip"]]
    return dict(pin.split("==") for pin in pins)


@pytest.mark.parametrize("name", ["mlip.yaml", "lammps.yaml", "qe.yaml"])
def test_environment_file_is_one_that_conda_reads(name):
    content = yaml.safe_load((ROOT / "envs" / name).read_text())
    assert content["channels"][0] == "conda-forge"
    assert all(isinstance(entry, str | dict) for entry in content["dependencies"])


def test_pip_versions_agree_with_the_lock():
    lock = read_lock()
    pins = read_pip_pins("mlip.yaml")
    assert {name: lock.get(canonicalize_name(name)) for name in pins} == pins


def test_every_dependency_of_the_package_is_pinned():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {canonicalize_name(re.match(r"[\w.-]+", dependency)[0]) for dependency in dependencies}
    assert wanted <= {canonicalize_name(name) for name in read_pip_pins("mlip.yaml")}


def test_rules_name_environment_files_that_exist():
    named = {
        name
        for path in (ROOT / "rules").glob("*.smk")
        for name in re.findall(r'conda:\s*"\.\./envs/([^"]+)"', path.read_text())
    }
    assert named
    assert named <= {path.name for path in (ROOT / "envs").glob("*.yaml")}
