"""The buffer audit with a real oracle (EMT) and a real fit, where what it must find is known."""

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from mlip_auto.ace import build_basis
from mlip_auto.audit_buffer import AuditedCut, audit_cuts, find_smallest_buffer
from mlip_auto.cli import app
from mlip_auto.config import Training, parse_config
from mlip_auto.config_dft import Dft
from mlip_auto.config_initial import StructureSource
from mlip_auto.fitting import build_data_frame, fit_linear
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import read_json, write_structures
from mlip_auto.training import build_training_set
from mlip_auto.trial_cuts import AuditFrame, find_audit_frame, make_trial_cuts

CORE, CENTERS = 3.45, (5, 77)  # Å: between the first shell and the second
CRYSTAL = StructureSource(prototype="fcc", a=4.05, supercell=(4, 4, 4))


@pytest.fixture(scope="session")
def config():
    return parse_config(
        {
            "name": "audit",
            "seed": 3,
            "system": {"elements": ["Al"]},
            "initial": {"structures": [{"prototype": "fcc", "a": 4.05, "rattles": [0.1]}]},
            "dft": {"code": "emt"},
            "training": {
                "basis": {
                    "cutoff": 4.5,
                    "number_of_functions_per_element": 15,
                    "nradmax_by_orders": [5, 3, 2],
                    "lmax_by_orders": [0, 2, 1],
                }
            },
            "exploration": {
                "walkers": [
                    {"structure": {"prototype": "fcc", "a": 4.05, "supercell": [4, 4, 4]}, "temperatures": [900]}
                ]
            },
        }
    )


@pytest.fixture(scope="session")
def frame() -> AuditFrame:
    atoms = bulk("Al", cubic=True, a=4.05) * (4, 4, 4)
    atoms.rattle(0.12, seed=4)
    return AuditFrame(atoms, "hot Al", CRYSTAL)


def run_audit(config, frame, tmp_path, buffers, max_atoms=10_000, potential=None):
    cuts, left_out = make_trial_cuts(frame, CENTERS, buffers, CORE, max_atoms, config)
    dft = Dft(code="emt", store=tmp_path / "store")
    return cuts, audit_cuts(frame, cuts, left_out, CORE, 5.0, max_atoms, dft, tmp_path / "work", potential)


def compute_forces(atoms: Atoms) -> np.ndarray:
    copy = atoms.copy()
    copy.calc = EMT()
    return copy.get_forces()


def test_errors_are_those_of_the_core_in_the_cut_against_its_parent(config, frame, tmp_path):
    cuts, audit = run_audit(config, frame, tmp_path, [2.0])
    in_parent = compute_forces(frame.atoms)
    assert {cut.mode for cut in cuts} == {"cluster", "box"}
    for cut, audited in zip(cuts, audit.cuts, strict=True):
        distances = frame.atoms.get_distances(cut.center, range(len(frame.atoms)), mic=True)
        core = np.flatnonzero(distances < CORE)
        place = {parent: index for index, parent in enumerate(cut.atoms.arrays["parent_index"])}
        in_cut = compute_forces(cut.atoms)[[place[parent] for parent in core]]
        difference = 1e3 * (in_cut - in_parent[core])
        assert audited.core_atoms == len(core) == 13
        assert audited.rmse == pytest.approx(np.sqrt(np.mean(difference**2)))
        assert audited.largest == pytest.approx(np.linalg.norm(difference, axis=1).max())


def test_a_wide_buffer_is_found_to_be_enough(config, frame, tmp_path):
    """EMT's forces reach to about twice its cutoff: some 12 Å; most of it is in the first half."""
    buffers = [1.1, 2.0, 4.0, 6.0]
    _, audit = run_audit(config, frame, tmp_path, buffers)
    errors = {cut.buffer: cut.rmse for cut in audit.cuts if cut.mode == "cluster" and cut.center == CENTERS[0]}
    assert list(errors) == buffers
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert errors[1.1] > 50 and errors[6.0] < 1
    assert audit.enough["cluster"] in (4.0, 6.0)


def test_a_label_is_never_paid_twice(config, frame, tmp_path):
    _, first = run_audit(config, frame, tmp_path, [1.1, 2.0])
    paid = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*.json")}
    assert len(paid) == 1 + len(first.cuts)
    run_audit(config, frame, tmp_path, [1.1, 2.0, 3.0])
    again = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").rglob("*.json")}
    assert len(again) == len(paid) + len(CENTERS)
    assert paid.items() <= again.items()


def test_the_widest_cluster_stands_for_a_frame_that_is_too_large(config, frame, tmp_path):
    _, exact = run_audit(config, frame, tmp_path, [1.1, 2.0, 6.0])
    _, audit = run_audit(config, frame, tmp_path, [1.1, 2.0, 6.0], max_atoms=255)
    assert exact.reference == "the whole frame, 256 atoms"
    assert "the widest cluster of each centre, with a buffer of 6 Å" in audit.reference
    exact_rows = {(cut.mode, cut.buffer, cut.center): cut.rmse for cut in exact.cuts}
    assert {cut.buffer for cut in audit.cuts if cut.mode == "cluster"} == {1.1, 2.0}  # never against itself
    for cut in audit.cuts:
        assert cut.rmse == pytest.approx(exact_rows[cut.mode, cut.buffer, cut.center], abs=1.0)


def test_the_potentials_forces_are_exact_with_a_buffer_of_twice_the_cutoff(config, tmp_path, al_labels, small_basis):
    atoms = bulk("Al", cubic=True, a=4.05) * (5, 5, 5)
    atoms.rattle(0.12, seed=4)
    data = build_training_set([al_labels], 0.0)
    settings = Training(basis=small_basis, repulsion="none")
    basis = fit_linear(build_basis(small_basis, ["Al"]), build_data_frame(data, small_basis.cutoff), settings)
    potential = tmp_path / "potential.yaml"
    basis.save(str(potential))
    frame = AuditFrame(atoms, "hot Al", None)
    _, audit = run_audit(config, frame, tmp_path, [2.0, 2 * small_basis.cutoff], potential=potential)
    errors = {cut.buffer: cut.model_rmse for cut in audit.cuts if cut.center == CENTERS[0]}
    assert errors[2.0] > 1
    assert errors[2 * small_basis.cutoff] < 1e-6


def make_row(buffer: float, rmse: float | None, reason: str | None = None) -> AuditedCut:
    return AuditedCut("cluster", buffer, 0, 10, 5, rmse, rmse, None, None, 1.0, reason)


def test_a_width_is_enough_when_all_wider_ones_are_too():
    rows = [make_row(1, 30.0), make_row(2, 4.0), make_row(3, 9.0), make_row(4, 3.0), make_row(5, 1.0)]
    assert find_smallest_buffer(rows, "cluster", 5.0) == 4
    assert find_smallest_buffer(rows, "cluster", 10.0) == 2
    assert find_smallest_buffer(rows, "cluster", 0.5) is None
    assert find_smallest_buffer([*rows, make_row(6, None, "not converged")], "cluster", 5.0) is None


def test_the_frame_is_that_of_the_last_halt_or_a_rattled_start(config, tmp_path):
    start = find_audit_frame(config, CampaignPaths(tmp_path), None, None, 0.1)
    assert len(start.atoms) == 256 and start.crystal is not None
    assert np.std(start.atoms.positions - bulk("Al", cubic=True, a=4.05).repeat(4).positions) == pytest.approx(
        0.1, rel=0.1
    )
    write_structures(tmp_path / "frame.extxyz", [bulk("Al", cubic=True, a=4.1) * (3, 3, 3), start.atoms])
    assert len(find_audit_frame(config, CampaignPaths(tmp_path), tmp_path / "frame.extxyz", None, 0.1).atoms) == 256
    write_structures(tmp_path / "other.extxyz", [bulk("Cu") * (2, 2, 2)])
    with pytest.raises(ValueError, match=r"holds Cu; system\.elements allows Al"):
        find_audit_frame(config, CampaignPaths(tmp_path), tmp_path / "other.extxyz", None, 0.1)
    (tmp_path / "torn.extxyz").write_text("3\nLattice")
    with pytest.raises(ValueError, match=r"torn\.extxyz: ASE cannot read it"):
        find_audit_frame(config, CampaignPaths(tmp_path), tmp_path / "torn.extxyz", None, 0.1)
    with pytest.raises(ValueError, match=r"--walker: md_900K"):
        find_audit_frame(config, CampaignPaths(tmp_path), None, "md_900K", 0.1)


def test_the_command_writes_its_table_and_says_which_width_is_enough(config, tmp_path):
    (tmp_path / "config").mkdir()
    content = config.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(content))
    command = [
        "audit-buffer",
        "-d",
        str(tmp_path),
        "--core",
        "3.2",
        "--centers",
        "1",
        "--buffer",
        "1.4",
        "--buffer",
        "5",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "cluster: a buffer of 5.00 Å is the smallest one within 20 meV/Å" in done.output
    paths = CampaignPaths(tmp_path)
    content = read_json(paths.buffer_audit(".json"))
    assert content["enough"]["cluster"] == 5.0
    clusters = [row for row in content["table"] if row["mode"] == "cluster"]
    assert clusters[0]["rmse"] > 20 > clusters[1]["rmse"]
    assert len(paths.buffer_audit(".csv").read_text().splitlines()) == 1 + len(content["cuts"])
    assert "plotly" in paths.buffer_audit(".html").read_text()

    refused = CliRunner().invoke(app, [*command, "--frame", "none.extxyz"])
    assert refused.exit_code == 1
    assert "--frame: none.extxyz: no such file" in refused.output
