"""`mlip-auto init`: what it writes passes `check`; flags, questions, refusals."""

import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
import yaml

from mlip_auto.check import check_campaign
from mlip_auto.config import CampaignConfig, parse_config
from mlip_auto.starter import Answers, NoStart, parse_elements, write_config

MLIP_AUTO = Path(sys.executable).with_name("mlip-auto")


def init(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MLIP_AUTO, "init", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def start(*elements: str, **answers: object) -> CampaignConfig:
    return parse_config(yaml.safe_load(write_config(Answers(list(elements), **answers))))


STARTS = {
    "one metal": start("Al"),
    "an alloy": start("Cu", "Au"),
    "a dilute alloy": start("Ni", "Al", composition={"Ni": 0.9, "Al": 0.1}),
    "another lattice": start("Cu", "Au", prototype="bcc"),
    "a semiconductor at the Gamma point": start("Si", oracle="tblite"),
    "two of them": start("Si", "Ge", oracle="tblite", temperatures=[500.0]),
    "hcp at the Gamma point": start("Mg", oracle="tblite"),
    "three elements": start("Cu", "Ni", "Au"),
    "a pressure": start("Al", pressure=1.0, a=4.0),
}


@pytest.mark.parametrize("config", STARTS.values(), ids=STARTS.keys())
def test_a_first_config_passes_check_without_a_warning(config):
    found = check_campaign(config)
    assert (found.errors, found.warnings) == ([], [])


def test_the_numbers_follow_from_the_elements():
    silicon, alloy, titanium = start("Si", oracle="tblite"), STARTS["an alloy"], start("Ti", oracle="espresso")
    assert silicon.training.basis.cutoff == 4.3 and silicon.extraction.box_side == 2 * 5.43
    assert alloy.initial.structures[0].a == pytest.approx((3.61 + 4.08) / 2)  # Vegard
    assert [family.a for family in alloy.initial.structures[1:]] == [3.61, 4.08]
    assert titanium.extraction.mode == "cell" and titanium.initial.structures[0].prototype == "hcp"
    assert start("Fe", oracle="espresso").dft.starting_moments == {"Fe": 2.3}


def test_espresso_lacks_its_pseudopotentials_only():
    found = check_campaign(start("Al", oracle="espresso"))
    assert len(found.errors) == 1 and "dft.pseudopotentials.Al" in found.errors[0]


def test_flags_write_a_campaign_that_passes_check_and_overwrites_nothing(tmp_path):
    flags = ("--elements", "Cu-Au", "--oracle", "emt", "-T", "300 800", "--composition", "Cu3Au", "--name", "gold")
    done = init(tmp_path / "new", *flags)
    assert done.returncode == 0, done.stderr
    assert f"cd {tmp_path / 'new'}" in done.stdout and "mlip-auto check" in done.stdout
    checked = subprocess.run([MLIP_AUTO, "check"], cwd=tmp_path / "new", capture_output=True, text=True)
    assert checked.returncode == 0 and "gold would make" in checked.stdout and "md_800K" in checked.stdout
    written = tmp_path / "new" / "config" / "config.yaml"
    assert yaml.safe_load(written.read_text())["initial"]["structures"][0]["composition"] == {"Cu": 0.75, "Au": 0.25}
    before = written.read_bytes()
    refused = init(tmp_path / "new", *flags)
    assert refused.returncode == 1 and str(written) in refused.stderr
    assert written.read_bytes() == before


def test_a_terminal_is_asked(tmp_path):
    terminal = pexpect.spawn(str(MLIP_AUTO), ["init", str(tmp_path / "asked")], encoding="utf-8", timeout=120)
    for question, answer in [
        ("Elements", "Cu,Gold"),
        ("found 'Cu,Gold'", "Cu,Au"),
        ("Composition", "CuAu3"),
        ("Labels by", "emt"),
        ("Temperatures", ""),
    ]:
        terminal.expect(question)
        terminal.sendline(answer)
    terminal.expect("mlip-auto check")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    content = yaml.safe_load((tmp_path / "asked" / "config" / "config.yaml").read_text())
    assert content["dft"]["code"] == "emt"
    assert content["exploration"]["walkers"][0]["temperatures"] == [300, 900]
    assert content["exploration"]["walkers"][0]["structure"]["composition"] == {"Cu": 0.25, "Au": 0.75}


REFUSED = {
    "nothing told": ([], "--elements: missing"),
    "no element": (["-e", "Cu,Gold"], "--elements: found 'Cu,Gold'"),
    "no oracle": (["-e", "Cu", "-o", "magic"], "--oracle: found 'magic'; allowed: abinit"),
    "no temperature": (["-e", "Cu", "-T", "warm"], "--temperatures: found 'warm'"),
    "no lattice of init": (["-e", "H,O"], "--prototype: missing; H has the lattice 'diatom'"),
    "no length": (["-e", "Cu", "--a", "-3"], "Such a campaign is not possible; nothing was written.\n  initial.stru"),
    "an element that EMT lacks": (
        ["-e", "Ni,Fe", "-o", "EMT"],
        "Such a campaign is not possible; nothing was written.\n  dft.code",
    ),
    "another alloy": (["-e", "Cu,Au", "--composition", "CuAg"], "--composition: found 'CuAg'"),
    "no lattice constant": (["-e", "Ga", "--prototype", "fcc"], "--a: missing"),
    "no such lattice": (["-e", "Cu", "--prototype", "quasicrystal"], "--prototype: found 'quasicrystal'"),
}


@pytest.mark.parametrize(("flags", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_script_is_told_what_is_missing(flags, message, tmp_path):
    done = init(tmp_path / "new", *flags)
    assert done.returncode == 2
    assert done.stderr.startswith(message), done.stderr
    assert not (tmp_path / "new").exists()


def test_elements_are_read_as_people_write_them():
    assert parse_elements("Cu,Au") == parse_elements("Cu Au") == parse_elements("Cu-Au") == ["Cu", "Au"]
    with pytest.raises(NoStart):
        parse_elements(" ")


def test_the_shell_completes_commands():
    words = {"_MLIP_AUTO_COMPLETE": "complete_bash", "COMP_WORDS": "mlip-auto sta", "COMP_CWORD": "1"}
    done = subprocess.run([MLIP_AUTO], env=os.environ | words, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["status"]
    assert "--install-completion" in subprocess.run([MLIP_AUTO, "--help"], capture_output=True, text=True).stdout
