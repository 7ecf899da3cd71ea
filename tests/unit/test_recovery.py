"""The ladder, the checks of labels and the limits, without pw.x: by EMT, tblite and small real processes."""

import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from mlip_auto.config_dft import ESPRESSO_LADDER, Dft, Rung
from mlip_auto.guarded import Died, OutOfMemory, OutOfTime, call_in_child
from mlip_auto.label_checks import find_fault, find_outliers
from mlip_auto.labelling import TooManyFailures, collect_labels, label_structures
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.recovery import choose_rung, climb, find_flag, lay_over
from mlip_auto.scf_failures import HOPELESS, Failure, Reason
from mlip_auto.structures import structure_id, write_json, write_structures

WATER = {"method": "GFN1-xTB", "max_iterations": 2}


def tblite(**keys) -> Dft:
    return Dft(code="tblite", parameters=WATER, **keys)


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in HOPELESS | {Reason.OTHER}])
def test_the_default_ladder_has_a_rung_for_each_reason_that_can_be_cured(reason):
    rung = choose_rung(list(ESPRESSO_LADDER), reason)
    assert rung is not None and reason in rung.cures


@pytest.mark.parametrize("reason", sorted(HOPELESS))
def test_what_is_hopeless_is_not_retried(reason):
    assert choose_rung(list(ESPRESSO_LADDER), reason) is None


def test_only_rungs_that_cure_the_reason_are_tried_in_their_order(tmp_path):
    """tblite needs more than 5 steps: two rungs for it fail and cure, one for another reason is passed over."""
    ladder = [
        Rung(name="again", cures=["killed"]),
        Rung(name="three", cures=["not_converged"], parameters={"max_iterations": 3}, same_physics=True),
        Rung(name="many", cures=["not_converged"], parameters={"max_iterations": 100}, same_physics=True),
        Rung(name="more", cures=["not_converged"], parameters={"max_iterations": 200}),
    ]
    water = molecule("H2O")
    climbed = climb(water, tblite(recovery=ladder), tmp_path / "water")
    assert [rung["rung"] for rung in climbed.rungs] == ["as_asked", "three", "many"]
    assert [rung["outcome"].partition(":")[0] for rung in climbed.rungs] == ["not_converged"] * 2 + ["completed"]
    assert climbed.flag is None
    flagged = climb(water, tblite(recovery=ladder[3:]), tmp_path / "flagged")
    assert flagged.flag == "rung more changed max_iterations"


def test_a_ladder_that_ends_gives_the_last_reason(tmp_path):
    climbed = climb(molecule("H2O"), tblite(), tmp_path / "water")
    assert isinstance(climbed.outcome, Failure) and climbed.outcome.reason is Reason.NOT_CONVERGED
    assert len(climbed.rungs) == 1


def test_rungs_are_laid_over_each_other():
    dft = Dft(
        code="espresso",
        parameters={"system": {"ecutwfc": 15, "degauss": 0.02}, "mixing_beta": 0.7},
        kspacing=0.3,
        pseudo_folder="pseudo",
        pseudopotentials={"Al": "Al.UPF"},
    )
    rungs = {rung.name: rung for rung in dft.ladder}
    small = lay_over(dft, dft.parameters, rungs["small_mixing"])
    assert small == {"ecutwfc": 15, "degauss": 0.02, "mixing_beta": 0.3, "electron_maxstep": 200}
    assert find_flag(dft, small, rungs["small_mixing"], None) is None
    both = lay_over(dft, small, rungs["conjugate_gradient"])
    assert both == {**small, "diagonalization": "cg"}
    wide = lay_over(dft, both, rungs["more_smearing"])
    flag = find_flag(dft, wide, rungs["more_smearing"], None)
    assert flag == "rung more_smearing changed degauss, occupations, smearing"


def test_labels_and_records_tell_the_ladder(tmp_path):
    rung = Rung(name="many", cures=["not_converged"], parameters={"max_iterations": 100}, same_physics=True)
    water = molecule("H2O")
    water.info["structure_id"] = structure_id(water)
    dft = tblite(recovery=[rung], store=tmp_path / "store")
    shard = label_structures([water], dft, tmp_path / "work")
    (record,) = shard.records.values()
    assert record["status"] == "completed" and [tried["rung"] for tried in record["rungs"]] == ["as_asked", "many"]
    assert record["seconds"] == pytest.approx(sum(tried["seconds"] for tried in record["rungs"]), abs=1e-3)
    assert list((tmp_path / "work").iterdir()) == []
    assert shard.labels[0].info["settings_hash"] == compute_settings_hash(dft)


def test_a_failed_structure_keeps_its_files_until_it_is_tried_again(tmp_path):
    water = molecule("H2O")
    water.info["structure_id"] = structure_id(water)
    shard = label_structures([water], tblite(store=tmp_path / "store"), tmp_path / "work")
    (record,) = shard.records.values()
    assert record["files"] == str(tmp_path / "work" / water.info["structure_id"][:12])
    assert record["seconds"] > 0
    (tmp_path / "work" / water.info["structure_id"][:12] / "old").touch()
    label_structures([water], tblite(store=tmp_path / "store"), tmp_path / "work")
    assert not list((tmp_path / "work").rglob("old"))


def label(force: float, name: str) -> Atoms:
    atoms = Atoms("Al", info={"structure_id": name, "generation": 0})
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=[[force, 0.0, 0.0]])
    return atoms


def test_outliers_by_hand():
    """Logarithms 0, ±0.1, ±0.2, ... of eleven labels: median 0, MAD 0.3, so a deviation is 0.445."""
    labels = [label(float(np.exp(0.1 * k)), f"{k}") for k in range(-5, 6)]
    assert find_outliers(labels, 6.0) == {}
    inside, outside = label(float(np.exp(2.6)), "inside"), label(float(np.exp(3.4)), "outside")
    found = find_outliers([*labels, inside, outside], 6.0)
    assert list(found) == ["outside"] and "largest force 29.96 eV/Å" in found["outside"]
    assert find_outliers([*labels, outside], None) == {}
    assert find_outliers([*labels[:6], outside], 6.0) == {}  # seven labels have no distribution


def test_perfect_crystals_are_no_outliers_and_make_none():
    labels = [label(0.0, f"{k}") for k in range(9)]
    assert find_outliers(labels, 6.0) == {}
    assert list(find_outliers([*labels, label(3.0, "far")], 6.0)) == ["far"]


def test_outliers_are_refused_with_their_reason(tmp_path):
    dft = Dft(code="emt", max_failed_fraction=0.1)
    labels = [label(1.0 + 0.1 * k, f"{k}") for k in range(10)] + [label(40.0, "far")]
    for atoms in labels:
        atoms.info["settings_hash"] = compute_settings_hash(dft)
    write_structures(tmp_path / "labels.extxyz", labels)
    records = {atoms.info["structure_id"]: {"status": "completed", "reason": None} for atoms in labels}
    write_json(tmp_path / "record.json", {"structures": records})
    collected = collect_labels([tmp_path / "labels.extxyz"], [tmp_path / "record.json"], [], dft)
    assert len(collected.labels) == 10 and "dft.outlier_deviations" in collected.refused["far"]
    with pytest.raises(TooManyFailures, match="far: largest force 40"):
        strict = dft.model_copy(update={"max_failed_fraction": 0.0})
        collect_labels([tmp_path / "labels.extxyz"], [tmp_path / "record.json"], [], strict)


def test_a_net_force_is_a_fault():
    fault = find_fault(0.0, np.full((4, 3), 0.1), 4, Dft(code="emt"))
    assert fault is not None and "net force of 0.173 eV/Å an atom" in fault.message


def _busy(seconds: float) -> None:
    subprocess.run([sys.executable, "-c", f"import time; time.sleep({seconds})"], check=True)


def _hold(megabytes: int) -> None:
    subprocess.run([sys.executable, "-c", f"x = b'x' * {megabytes}_000_000; import time; time.sleep(30)"], check=True)


def _leave_behind(pid_file: str) -> int:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], start_new_session=False)
    with open(pid_file, "w") as file:
        file.write(str(process.pid))
    return process.pid


def test_time_limit_ends_what_the_call_started():
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    started = time.monotonic()
    with pytest.raises(OutOfTime, match="after 1 s"):
        call_in_child(_busy, 30, seconds=1)
    assert time.monotonic() - started < 25
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before


def test_memory_limit_counts_what_the_call_started():
    with pytest.raises(OutOfMemory, match=r"above 0\.2"):
        call_in_child(_hold, 400, memory_gb=0.2, seconds=25)


def test_nothing_that_a_call_started_outlives_it(tmp_path):
    pid = call_in_child(_leave_behind, str(tmp_path / "pid"))
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_call_that_dies_says_how():
    with pytest.raises(Died, match=r"exit code 7"):
        call_in_child(os._exit, 7)
    assert call_in_child(max, 3, 4) == 4


def test_a_structure_beyond_its_time_fails_and_the_next_goes_on(tmp_path):
    big = bulk("Si", cubic=True, a=5.6) * (2, 2, 3)
    big.rattle(0.1, seed=1)
    small = bulk("Si", cubic=True, a=5.6)
    for atoms in (big, small):
        atoms.info["structure_id"] = structure_id(atoms)
    dft = Dft(code="tblite", parameters={"method": "GFN1-xTB"}, store=tmp_path / "store", max_minutes=1.5 / 60)
    first, second = label_structures([big, small], dft, tmp_path / "work").records.values()
    assert first["status"] == "failed" and first["reason"].startswith("out_of_time: not over after 1.5 s")
    assert second["status"] == "completed"
