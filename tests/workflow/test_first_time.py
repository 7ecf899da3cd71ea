"""The first hour of a new user, from an empty folder: init, check, run, status, report, export of a binary alloy."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import read_json

pytestmark = pytest.mark.slow


def mlip_auto(folder: Path, *arguments: str) -> str:
    """What the command says when it succeeds."""
    command = [str(Path(sys.executable).with_name("mlip-auto")), *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def shorten(config: Path) -> None:
    """What a user in a hurry edits: fewer functions, hence fewer labels; shorter and smaller MD; one confirmation."""
    content = yaml.safe_load(config.read_text())
    content["training"]["basis"]["number_of_functions_per_element"] = 40
    for family, count in zip(content["initial"]["structures"], (10, 3, 3), strict=True):
        family["count"] = count
    content["exploration"]["steps"] = 50
    content["exploration"]["walkers"][0]["structure"]["supercell"] = [3, 3, 3]
    content["loop"]["confirmations"] = 1
    del content["validation"]
    config.write_text(yaml.safe_dump(content, sort_keys=False))


def test_from_an_empty_folder_to_an_exported_potential(tmp_path):
    written = mlip_auto(tmp_path, "init", "alloy", "--elements", "Cu,Au", "--oracle", "emt", "--temperatures", "300")
    alloy = tmp_path / "alloy"
    shorten(alloy / "config" / "config.yaml")
    checked = mlip_auto(alloy, "check")
    assert "16 structures of Cu-Au" in checked and "warning" not in checked
    ran = mlip_auto(alloy, "run", "--cores", "2")
    assert "run_md walker=md_300K" in ran and "Converged in generation" in ran
    assert "\x1b" not in ran  # no terminal: no colours, no bars
    summary = read_json(CampaignPaths(alloy).generation(0).summary)
    assert summary["labelled"] > 0 and summary["rmse"]["train"]["force"] < 0.1
    stands = mlip_auto(alloy, "status")
    assert "CONVERGED" in stands and "no driver is running. Next: `mlip-auto export DIR`" in stands
    mlip_auto(alloy, "report")
    with zipfile.ZipFile(alloy / "report.zip") as report:
        assert any(name.endswith("dashboard.html") for name in report.namelist())
    mlip_auto(alloy, "export", "../potential")
    exported = {path.name for path in (tmp_path / "potential").iterdir()}
    assert {"README.md", "potential.yace", "training_set.extxyz", "training_set.json.gz"} <= exported
    # Every command that init names is one that was just run, or a command of the shell.
    named = {line.split("#")[0].split()[1] for line in written.splitlines() if line.startswith("  mlip-auto ")}
    assert named == {"check", "doctor", "run", "status", "export"}
