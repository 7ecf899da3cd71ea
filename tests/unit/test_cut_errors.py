"""The exact force error of each way of cutting: EMT in the cut against EMT in the parent frame, by buffer width.

EMT's forces reach some 12 Å in fcc metals, most of it within 8 Å: a longer-ranged oracle has larger errors.
"""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.units import fs

from example_structures import label_with_emt
from mlip_auto.ace import build_basis, compute_active_set, save_active_set
from mlip_auto.audit_buffer import audit_cuts, tabulate_audit
from mlip_auto.config import CampaignConfig, parse_config
from mlip_auto.extraction import WalkerFrames, extract_cuts
from mlip_auto.fitted_potential import FittedPotential
from mlip_auto.fitting import build_data_frame, fit_linear
from mlip_auto.training import build_training_set
from mlip_auto.trial_cuts import AuditFrame, make_trial_cuts
from mlip_auto.walkers import base_walkers

CUTOFF, TRAINED = 5.0, 3.4  # Å: trained on is the first shell
CELLS = 5  # fcc cells along each side of the frame; 3 make the smallest box that holds the core
MATERIALS = {"Al": (["Al"], 4.05, 900), "CuAu": (["Au", "Cu"], 3.9, 800)}  # elements, a in Å, temperature in K
CENTERS = (0, 77, 222, 431)


def make_config(name: str, **extraction) -> CampaignConfig:
    elements, a, temperature = MATERIALS[name]
    crystal = {"prototype": "fcc", "formula": elements[0], "a": a}
    return parse_config(
        {
            "name": name,
            "seed": 1,
            "system": {"elements": elements},
            "initial": {"structures": [{**crystal, "rattles": [0.1]}]},
            "dft": {"code": "emt"},
            "training": {
                "basis": {
                    "cutoff": CUTOFF,
                    "number_of_functions_per_element": 15,
                    "nradmax_by_orders": [5, 3, 2],
                    "lmax_by_orders": [0, 2, 1],
                }
            },
            "extraction": extraction,
            "exploration": {
                "walkers": [{"structure": {**crystal, "supercell": [CELLS] * 3}, "temperatures": [temperature]}]
            },
        }
    )


def run_hot_md(name: str) -> Atoms:
    """A frame of EMT's own MD."""
    elements, a, temperature = MATERIALS[name]
    rng = np.random.default_rng(5)
    atoms = bulk(elements[0], "fcc", a=a, cubic=True) * (CELLS, CELLS, CELLS)
    atoms.symbols = rng.permutation(np.resize(elements, len(atoms)))
    atoms.calc = EMT()
    thermalize_momenta(atoms, temperature_K=2 * temperature, rng=rng)
    Langevin(atoms, 4 * fs, temperature_K=temperature, friction=0.02 / fs, rng=rng, fixcm=False).run(40)
    return atoms


@pytest.fixture(scope="module", params=MATERIALS)
def hot(request) -> tuple[str, CampaignConfig, AuditFrame]:
    config = make_config(request.param)
    return (
        request.param,
        config,
        AuditFrame(run_hot_md(request.param), request.param, config.exploration.walkers[0].structure),
    )


def test_error_by_width(hot, tmp_path, cut_table):
    """Both shapes converge to the frame; of the same width, the box is better: it has no surface."""
    name, config, frame = hot
    boxes = {cut.buffer for cut in make_trial_cuts(frame, CENTERS[:1], [], TRAINED, 500, config)[0]}
    widths = sorted({*(round(width, 2) for width in boxes), 1.6, 3.6, 5.6})
    cuts, left_out = make_trial_cuts(frame, CENTERS, widths, TRAINED, 500, config)
    assert all("less than twice the cutoff" in reason for reason in left_out), left_out
    dft = config.dft.in_folder(tmp_path)
    audit = audit_cuts(frame, cuts, left_out, TRAINED, 5.0, 500, dft, tmp_path / "work", None)
    rows = {(row["mode"], round(row["buffer"], 2)): row for row in tabulate_audit(audit.cuts)}
    thermal = 1e3 * np.sqrt(np.mean(frame.atoms.get_forces() ** 2))
    cut_table.append(f"{name}, {MATERIALS[name][2]} K, RMS force {thermal:.0f} meV/Å, trained radius {TRAINED:g} Å")
    cut_table.append("  cut      buffer Å  atoms  RMSE meV/Å  largest")
    for (mode, width), row in sorted(rows.items(), key=lambda item: (item[0][0], item[0][1])):
        cut_table.append(f"  {mode:8} {width:8.2f} {row['atoms']:6.0f} {row['rmse']:11.2f} {row['largest']:8.1f}")
    clusters = [rows["cluster", width]["rmse"] for width in widths]
    assert clusters == sorted(clusters, reverse=True)
    assert clusters[-1] < 1 < clusters[0]
    assert len(boxes) == 2
    for width in boxes:
        assert rows["box", round(width, 2)]["rmse"] < rows["cluster", round(width, 2)]["rmse"]


@pytest.fixture(scope="module")
def potential(hot, tmp_path_factory) -> FittedPotential:
    """A small fit to rattled cells, which does not know all of the hot frame."""
    name, config, _ = hot
    elements, a, _ = MATERIALS[name]
    rng = np.random.default_rng(2)
    labels = []
    for _ in range(12):
        atoms = bulk(elements[0], "fcc", a=a * rng.uniform(0.98, 1.02), cubic=True) * (2, 2, 2)
        atoms.symbols = rng.permutation(np.resize(elements, len(atoms)))
        atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
        labels.append(label_with_emt(atoms))
    settings = config.training
    basis = build_basis(settings.basis, elements)
    basis = fit_linear(basis, build_data_frame(build_training_set([labels], 0.0), CUTOFF), settings)
    folder = tmp_path_factory.mktemp("potential")
    basis.save(str(folder / "potential.yaml"))
    save_active_set(compute_active_set(basis, labels), elements, folder / "potential.asi")
    return FittedPotential(folder / "potential.yaml", folder / "potential.asi")


def measure_error(cuts: list[Atoms], in_frame: np.ndarray) -> float:
    """RMSE of EMT's force components on the trained atoms of cuts against those in their frame, meV/Å."""
    errors = []
    for cut in cuts:
        trained = cut.arrays["force_mask"].astype(bool)
        errors.append((label_with_emt(cut).get_forces() - in_frame[cut.arrays["parent_index"]])[trained])
    return 1e3 * float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


@pytest.mark.parametrize("cells", [3, 4])
def test_auto_is_as_good_as_the_best_mode(hot, cells, potential, cut_table):
    """Cut, healed and audited as in a campaign; box and cluster reach equally far from the centre."""
    name, _, frame = hot
    in_frame = frame.atoms.get_forces()
    a = MATERIALS[name][1]
    width = cells * a / 2
    atoms = frame.atoms.copy()
    atoms.arrays["gamma"] = potential.evaluate(atoms).gamma
    atoms.info["step"] = 10
    box = {"box_side": cells * a, "max_atoms": 300}
    cluster = {"core_radius": CUTOFF, "buffer": width - CUTOFF, "max_force_change": 100.0}
    errors, centers = {}, {}
    for mode, settings in {"auto": box, "box": box, "cluster": cluster}.items():
        config = make_config(name, mode=mode, trained_radius=TRAINED, **settings)
        walker = WalkerFrames(
            base_walkers(config)[0].name, {"outcome": "halted", "temperature": MATERIALS[name][2]}, [atoms]
        )
        cuts, refusals = extract_cuts([walker], potential, config, 0)
        assert refusals == []
        assert {cut.info["cut_mode"] for cut in cuts} == {"cluster" if mode == "cluster" else "box"}
        centers[mode] = [cut.info["parent_center"] for cut in cuts]
        errors[mode] = measure_error(cuts, in_frame)
        what = f"{mode}, healed and audited, {width:.2f} Å from the centre to the boundary"
        cut_table.append(f"{name}, {what}: {np.mean([len(cut) for cut in cuts]):.0f} atoms, RMSE {errors[mode]:.1f}")
    assert centers["auto"] == centers["box"] == centers["cluster"]
    assert errors["auto"] <= 1.2 * min(errors["box"], errors["cluster"])


def test_auto_takes_a_small_frame_whole(hot, potential):
    name, *_ = hot
    config = make_config(name)
    elements, a, _ = MATERIALS[name]
    atoms = bulk(elements[0], "fcc", a=a, cubic=True) * (3, 3, 3)
    atoms.symbols = np.resize(elements, len(atoms))
    atoms.rattle(0.15, seed=3)
    in_frame = label_with_emt(atoms).get_forces()
    atoms.arrays["gamma"] = potential.evaluate(atoms).gamma
    atoms.info["step"] = 10
    walker = WalkerFrames(
        base_walkers(config)[0].name, {"outcome": "halted", "temperature": MATERIALS[name][2]}, [atoms]
    )
    cuts, _ = extract_cuts([walker], potential, config, 0)
    assert [cut.info["cut_mode"] for cut in cuts] == ["cell"]
    assert measure_error(cuts, in_frame) < 1e-6
