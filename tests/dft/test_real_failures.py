"""Failures of real pw.x runs, each provoked in pw.x itself or by killing it, on four atoms of aluminium.

`table` gathers what was done, what happened and that nothing was lost; conftest.py prints it after the tests.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ase.io
import psutil
import pytest
from ase import Atoms

from example_structures import make_structures
from mlip_auto.config_dft import ESPRESSO_LADDER, Dft
from mlip_auto.espresso import find_espresso_errors, make_espresso
from mlip_auto.labelling import LabelledShard, label_structures
from mlip_auto.oracles import compute_settings_hash
from mlip_auto.recovery import find_flag, lay_over
from mlip_auto.store import LabelStore
from mlip_auto.structures import structure_id

# So tight an SCF that two paths to it meet within FORCE.
PARAMETERS = {"ecutwfc": 12, "occupations": "smearing", "smearing": "mv", "degauss": 0.02, "conv_thr": 1e-12}
HEAVY = {**PARAMETERS, "ecutwfc": 45}  # about 3 s, long enough to be hit in the middle
ENERGY, FORCE = 1e-6, 1e-5  # eV, eV/Å: labels against a bare run of the same input


@pytest.fixture
def make_dft(pw_x, tmp_path):
    def make(**keys) -> Dft:
        settings = {
            "code": "espresso",
            "parameters": PARAMETERS,
            "kspacing": 0.8,
            "pseudo_folder": pw_x,
            "pseudopotentials": {"Al": "Al.pz-vbc.UPF"},
            "store": tmp_path / "store",
        }
        return Dft(**{**settings, **keys})

    return make


def outcomes(shard: LabelledShard) -> list[str]:
    """Each try of the first structure as `rung: outcome`, the outcome without its message."""
    record = next(iter(shard.records.values()))
    return [f"{rung['rung']}: {rung['outcome'].partition(':')[0]}" for rung in record["rungs"]]


def run_bare(dft: Dft, atoms: Atoms, folder: Path) -> Atoms:
    """pw.x by hand on the input of a structure, read back by ASE."""
    folder.mkdir()
    calculator = make_espresso(dft, atoms)
    calculator.directory = folder
    calculator.write_inputfiles(atoms, ["energy", "forces"])
    with (folder / "out.pwo").open("wb") as out:
        subprocess.run(["pw.x", "-in", "espresso.pwi"], cwd=folder, stdout=out, stderr=subprocess.DEVNULL, check=True)
    return ase.io.read(folder / "out.pwo", format="espresso-out")


def assert_equal_to_bare(dft: Dft, atoms: Atoms, label: Atoms, folder: Path) -> None:
    bare = run_bare(dft, atoms.copy(), folder)
    assert label.get_potential_energy() == pytest.approx(bare.get_potential_energy(), abs=ENERGY)
    assert label.get_forces() == pytest.approx(bare.get_forces(), abs=FORCE)
    assert label.get_stress() == pytest.approx(bare.get_stress(), abs=1e-6)


def assert_kept(shard: LabelledShard, reason: str) -> dict:
    """The only structure failed with this reason, its files are there, and no label of it is in the store."""
    (record,) = shard.records.values()
    assert (record["status"], shard.labels) == ("failed", [])
    assert record["reason"].startswith(reason)
    assert list(Path(record["files"]).rglob("espresso.pwi"))
    return record


def test_labels_are_those_of_bare_pw_x(make_dft, tmp_path, table):
    dft = make_dft()
    structures = make_structures(2)
    shard = label_structures(structures, dft, tmp_path / "work")
    for number, (atoms, label) in enumerate(zip(structures, shard.labels, strict=True)):
        assert_equal_to_bare(dft, atoms, label, tmp_path / f"bare{number}")
        assert label.info["code_version"].startswith("pw.x 6") or label.info["code_version"].startswith("pw.x 7")
    for record in shard.records.values():
        assert record["scf_steps"] >= 4 and record["seconds"] > 0 and len(record["rungs"]) == 1
    assert list((tmp_path / "work").iterdir()) == []  # scratch goes with success
    again = label_structures(structures, dft, tmp_path / "work")
    assert all(record["from_store"] for record in again.records.values())
    table.append(("nothing", "two labels, those of bare pw.x; scratch removed", "second time from the store"))


def test_a_vacuum_cluster_with_an_odd_number_of_electrons(make_dft, tmp_path):
    atoms = Atoms("Al", pbc=False)
    atoms.center(vacuum=3.5)
    atoms.info.update(structure_id=structure_id(atoms))
    dft = make_dft()
    (label,) = label_structures([atoms], dft, tmp_path / "work").labels
    bare = run_bare(dft, atoms.copy(), tmp_path / "bare")
    assert label.get_potential_energy() == pytest.approx(bare.get_potential_energy(), abs=ENERGY)
    fixed = make_dft(parameters={"ecutwfc": 12})
    record = next(iter(label_structures([atoms], fixed, tmp_path / "work").records.values()))
    assert record["reason"].startswith("refused: 3 electrons cannot be paired")


def test_too_few_steps_are_cured(make_dft, tmp_path, table):
    atoms = make_structures()[0]
    shard = label_structures([atoms], make_dft(parameters={**PARAMETERS, "electron_maxstep": 3}), tmp_path / "work")
    assert outcomes(shard) == ["as_asked: not_converged", "small_mixing: completed"]
    assert_equal_to_bare(make_dft(), atoms, shard.labels[0], tmp_path / "bare")
    assert "flagged" not in shard.labels[0].info
    table.append(("electron_maxstep 3", "; ".join(outcomes(shard)), "the label of bare pw.x"))


def test_a_mixing_that_oscillates_is_cured(make_dft, tmp_path, table):
    atoms = make_structures()[0]
    dft = make_dft(parameters={**PARAMETERS, "mixing_beta": 9.0, "electron_maxstep": 25})
    shard = label_structures([atoms], dft, tmp_path / "work")
    assert outcomes(shard)[0] == "as_asked: not_converged" and outcomes(shard)[-1].endswith("completed")
    assert_equal_to_bare(make_dft(), atoms, shard.labels[0], tmp_path / "bare")
    table.append(("mixing_beta 9", "; ".join(outcomes(shard)), "the label of bare pw.x"))


def test_loose_forces_are_cured(make_dft, tmp_path, table):
    atoms = make_structures()[0]
    shard = label_structures([atoms], make_dft(parameters={**PARAMETERS, "conv_thr": 0.01}), tmp_path / "work")
    assert outcomes(shard) == ["as_asked: forces", "tight_scf: completed"]
    assert_equal_to_bare(make_dft(), atoms, shard.labels[0], tmp_path / "bare")
    table.append(("conv_thr 0.01", "; ".join(outcomes(shard)), "the label of bare pw.x"))


def test_a_rung_that_changes_the_physics_flags_its_label(make_dft, tmp_path, table):
    more = {"name": "wide", "cures": ["not_converged"], "parameters": {"degauss": 0.05, "electron_maxstep": 50}}
    keys = {"parameters": {**PARAMETERS, "electron_maxstep": 3}, "recovery": [more]}
    atoms = make_structures()[0]
    dft = make_dft(**keys)
    shard = label_structures([atoms], dft, tmp_path / "work")
    (record,) = shard.records.values()
    assert record["status"] == "failed" and shard.labels == []
    assert record["reason"] == "flagged: rung wide changed degauss; dft.accept_flagged is false"
    stored = LabelStore(dft.store, compute_settings_hash(dft)).read(atoms.info["structure_id"], 4)
    assert stored is not None and stored.flag
    accepted = label_structures([atoms], make_dft(**keys, accept_flagged=True), tmp_path / "work")
    assert accepted.labels[0].info["flagged"] == stored.flag
    assert next(iter(accepted.records.values()))["from_store"]
    table.append(("a rung with degauss 0.05", "refused as flagged", "in the store, for accept_flagged"))


@pytest.mark.parametrize("rung", ESPRESSO_LADDER, ids=lambda rung: rung.name)
def test_each_rung_is_an_input_that_pw_x_takes(make_dft, tmp_path, rung):
    """Laid over good settings, a rung that does not flag gives the same label."""
    atoms = make_structures()[0]
    dft = make_dft(parameters={**PARAMETERS, "conv_thr": 1e-11})
    parameters = lay_over(dft, dft.parameters, rung)
    shard = label_structures([atoms], make_dft(parameters=parameters, recovery=[]), tmp_path / "work")
    assert outcomes(shard) == ["as_asked: completed"]
    if find_flag(dft, parameters, rung, None) is None:
        assert_equal_to_bare(dft, atoms, shard.labels[0], tmp_path / "bare")
    else:
        assert rung.name == "more_smearing"


def test_a_missing_and_a_wrong_pseudopotential(make_dft, tmp_path, table):
    for file, said in (("Al.gone.UPF", "No such file"), ("Si.pz-vbc.UPF", "is a pseudopotential of Si")):
        (error,) = find_espresso_errors(make_dft(pseudopotentials={"Al": file}), ["Al"])
        assert said in error
    shard = label_structures(make_structures(), make_dft(pseudopotentials={"Al": "Si.pz-vbc.UPF"}), tmp_path / "work")
    (record,) = shard.records.values()
    assert record["reason"].startswith("refused: ") and len(record["rungs"]) == 1
    table.append(("missing pseudopotential", "refused by check", "nothing was run"))
    table.append(("silicon's pseudopotential", "refused by check, and by the job", "nothing was run"))


def test_electrons_of_another_pseudopotential(make_dft, pw_x, tmp_path, table):
    """pw.x is given another file than was checked: it computes all the same, and says JOB DONE."""
    (tmp_path / "Al.UPF").write_text((pw_x / "Si.pz-vbc.UPF").read_text().replace('element="Si"', 'element="Al"'))
    dft = make_dft(pseudo_folder=tmp_path, pseudopotentials={"Al": "Al.UPF"})
    command = "sh -c 'sed -i s/Al.UPF/Al.pz-vbc.UPF/ espresso.pwi; pw.x \"$@\"' sh"
    shutil.copy(pw_x / "Al.pz-vbc.UPF", tmp_path)
    shard = label_structures(make_structures(), dft.model_copy(update={"command": command}), tmp_path / "work")
    assert_kept(shard, "refused: pw.x computed 12.0 electrons; valences less tot_charge make 16")
    table.append(("pw.x given another file", "refused: 12 electrons instead of 16", "files kept"))


def test_a_truncated_output(make_dft, tmp_path, table):
    dft = make_dft(command="sh -c 'pw.x \"$@\" | head -n 190' sh")
    shard = label_structures(make_structures(), dft, tmp_path / "work")
    assert outcomes(shard) == ["as_asked: truncated", "again: truncated"]
    assert_kept(shard, "truncated: ")
    table.append(("output cut after 190 lines", "; ".join(outcomes(shard)), "files of both tries kept"))


def test_copies_under_another_mpi(make_dft, tmp_path, table):
    """Two pw.x into one output, which is what an mpirun of another MPI starts."""
    dft = make_dft(command='sh -c \'pw.x "$@"; pw.x "$@"\' sh')
    assert_kept(label_structures(make_structures(), dft, tmp_path / "work"), "refused: pw.x started 2 times")
    table.append(("pw.x twice instead of MPI", "refused", "files kept"))


def pw_processes(folder: Path) -> list[psutil.Process]:
    """Live pw.x and mpirun that work in a folder below this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            working = process.name() in ("pw.x", "mpirun.openmpi") and process.status() != psutil.STATUS_ZOMBIE
            if working and process.cwd().startswith(str(folder)):
                found.append(process)
    return found


def wait_for(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def kill_pw(folder: Path, times: int) -> threading.Thread:
    """SIGKILL so many pw.x in `folder`, each half a second after it started."""

    def kill() -> None:
        for _ in range(times):
            assert wait_for(lambda: pw_processes(folder), 30)
            time.sleep(0.5)
            for process in pw_processes(folder):
                process.kill()
            wait_for(lambda: not pw_processes(folder), 5)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_sigkill_in_the_middle(make_dft, tmp_path, table):
    atoms = make_structures()[0]
    dft = make_dft(parameters=HEAVY)
    killer = kill_pw(tmp_path, 2)
    shard = label_structures([atoms], dft, tmp_path / "work")
    killer.join()
    assert outcomes(shard) == ["as_asked: killed", "again: killed"]
    assert_kept(shard, "killed: ")
    killer = kill_pw(tmp_path, 1)
    shard = label_structures([atoms], dft, tmp_path / "work")
    killer.join()
    assert outcomes(shard) == ["as_asked: killed", "again: completed"]
    assert_equal_to_bare(dft, atoms, shard.labels[0], tmp_path / "bare")
    table.append(("SIGKILL of pw.x, twice", "as_asked: killed; again: killed", "files of both tries kept"))
    table.append(("SIGKILL of pw.x, once", "; ".join(outcomes(shard)), "the label of bare pw.x"))


@pytest.mark.parametrize("command", [None, "mpirun.openmpi --allow-run-as-root --oversubscribe -np {threads} pw.x"])
def test_pw_x_ends_with_its_job(make_dft, tmp_path, table, command):
    """SIGKILL of the labelling process itself: the kernel ends what it started."""
    dft = make_dft(parameters={**PARAMETERS, "ecutwfc": 90}, kspacing=0.2, threads=2, command=command)
    job = os.fork()
    if job == 0:
        with suppress(BaseException):
            label_structures(make_structures(), dft, tmp_path / "work")
        os._exit(0)
    try:
        assert wait_for(lambda: pw_processes(tmp_path), 30)
        time.sleep(0.3)
    finally:
        psutil.Process(job).kill()
        os.waitpid(job, 0)
    assert wait_for(lambda: not pw_processes(tmp_path), 10)
    assert not list(tmp_path.rglob("store/**/*.json"))
    table.append(
        (f"SIGKILL of the job of {(command or 'pw.x').split()[0]}", "pw.x ended with it", "no entry in the store")
    )


def test_time_limit(make_dft, tmp_path, table):
    dft = make_dft(parameters={**PARAMETERS, "ecutwfc": 90}, kspacing=0.2, max_minutes=2 / 60)
    shard = label_structures(make_structures(2), dft, tmp_path / "work")
    assert [record["status"] for record in shard.records.values()] == ["failed"] * 2
    assert outcomes(shard) == ["as_asked: out_of_time"]
    assert pw_processes(tmp_path) == []
    table.append(("max_minutes of 2 s", "out_of_time, not retried, next structure", "files kept"))


def test_memory_limit(make_dft, tmp_path, table):
    dft = make_dft(parameters={**PARAMETERS, "ecutwfc": 90}, kspacing=0.2, max_memory_gb=0.04)
    shard = label_structures(make_structures(), dft, tmp_path / "work")
    assert outcomes(shard) == ["as_asked: out_of_memory", "conjugate_gradient: out_of_memory"]
    assert_kept(shard, "out_of_memory: ")
    assert pw_processes(tmp_path) == []
    table.append(("max_memory_gb 0.04", "; ".join(outcomes(shard)), "files of both tries kept"))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size; needs root."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        needs = f"needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}"
        (pytest.fail if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip)(needs)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_scratch_disk(make_dft, tmp_path, table):
    """pw.x does not notice: its output is cut and it returns 0. The store, elsewhere, keeps what it has."""
    one, other = make_structures(2)
    with small_disk(tmp_path / "scratch", "64k") as scratch:
        good = label_structures([one], make_dft(), tmp_path / "work")
        (scratch / "filler").write_bytes(bytes(52 * 1024))
        shard = label_structures([one, other], make_dft(), scratch / "work")
        failed = shard.records[other.info["structure_id"]]
        assert failed["status"] == "failed" and failed["reason"].startswith("out_of_disk: ")
        assert len(failed["rungs"]) == 1  # hopeless: not retried
        assert shard.records[one.info["structure_id"]]["from_store"]
        assert shard.labels[0].get_potential_energy() == good.labels[0].get_potential_energy()
        (scratch / "filler").unlink()
        shutil.rmtree(scratch / "work")
    again = label_structures([other], make_dft(), tmp_path / "work")
    assert_equal_to_bare(make_dft(), other, again.labels[0], tmp_path / "bare")
    table.append(("a full scratch disk", "out_of_disk, not retried", "labelled when there was room"))
