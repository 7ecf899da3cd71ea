"""Masked atoms and weightless energies: whatever stands there, the fit, its errors and the active set stay the same."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc100
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from example_structures import label_with_emt
from mlip_auto.ace import build_basis, compute_active_set, compute_core_projections, compute_gamma
from mlip_auto.config import Training
from mlip_auto.fitting import FitFailed, build_data_frame, fit_linear, fit_pacemaker
from mlip_auto.training import NoTrainingData, build_training_set, compute_rmse, forecast_labels, predict_labels


def with_buffer(atoms: Atoms, absurd_force: float) -> Atoms:
    """The label as a masked cut: half its atoms are buffer, with absurd forces, and its energy has no weight."""
    masked = atoms.copy()
    forces = atoms.get_forces().copy()
    mask = np.arange(len(atoms)) < len(atoms) // 2
    forces[~mask] = absurd_force
    masked.arrays["force_mask"] = mask.astype(int)
    masked.info["energy_weight"] = 0.0
    energy = atoms.get_potential_energy() + absurd_force
    masked.calc = SinglePointCalculator(masked, energy=energy, forces=forces)
    return masked


def fit(labels, small_basis, solver, directory):
    settings = Training(basis=small_basis, maxiter=3)
    data = build_training_set([labels], held_out_fraction=0.0)
    frame = build_data_frame(data, small_basis.cutoff)
    assert len(frame) == len(labels)
    basis = fit_linear(build_basis(small_basis, ["Al"]), frame, settings)
    if solver == "pacemaker":
        basis = fit_pacemaker(basis, frame, settings, seed=1, directory=directory)
    return basis, data


@pytest.mark.parametrize("solver", ["linear", pytest.param("pacemaker", marks=pytest.mark.slow)])
def test_absurd_forces_of_masked_atoms_change_nothing(al_labels, small_basis, solver, tmp_path):
    clean = [*al_labels[:6], *(with_buffer(atoms, 0.0) for atoms in al_labels[6:])]
    absurd = [*al_labels[:6], *(with_buffer(atoms, 1e3) for atoms in al_labels[6:])]
    first, data = fit(clean, small_basis, solver, tmp_path / "clean")
    second, spoilt = fit(absurd, small_basis, solver, tmp_path / "absurd")
    first_coefficients, second_coefficients = first.get_all_coeffs(), second.get_all_coeffs()
    assert np.abs(first_coefficients).max() > 1e-3
    assert second_coefficients == pytest.approx(first_coefficients, rel=1e-9, abs=1e-12)

    errors = [compute_rmse(predict_labels(first, part.train, part.reference_energies)) for part in (data, spoilt)]
    assert errors[0] == errors[1]
    assert errors[0]["force"] < 0.15


def test_the_fit_learns_emt(al_labels, small_basis, tmp_path):
    basis, data = fit(al_labels[:6], small_basis, "linear", tmp_path)
    unseen = compute_rmse(predict_labels(basis, al_labels[6:], data.reference_energies))
    spread = np.concatenate([atoms.get_forces() for atoms in al_labels[6:]]).std()
    assert unseen["force"] < 0.2 * spread
    assert unseen["energy"] < 5e-3


def test_pacemaker_failure_names_its_output(al_labels, small_basis, tmp_path):
    settings = Training(basis=small_basis, maxiter=1)
    data = build_training_set([al_labels[:2]], held_out_fraction=0.0)
    frame = build_data_frame(data, small_basis.cutoff).drop(columns="forces")
    with pytest.raises(FitFailed, match=r"pacemaker\.out"):
        fit_pacemaker(build_basis(small_basis, ["Al"]), frame, settings, seed=1, directory=tmp_path)


def test_active_set_has_no_buffer_environment(al_labels, small_basis):
    """A buffer atom far outside the core environments keeps a large gamma; without a mask it becomes known."""
    basis = build_basis(small_basis, ["Al"])
    odd = al_labels[0].copy()
    odd.positions[-1] += [0.9, 0.4, 0.2]
    without_mask = compute_active_set(basis, [*al_labels, odd])
    odd.arrays["force_mask"] = np.array([1] * 20 + [0] * (len(odd) - 20))
    odd.arrays["force_mask"][odd.get_all_distances(mic=True)[-1] < small_basis.cutoff] = 0
    with_mask = compute_active_set(basis, [*al_labels, odd])

    projections, owners = compute_core_projections(basis, [*al_labels, odd])
    assert len(projections[0]) == sum(len(atoms) for atoms in al_labels) + odd.arrays["force_mask"].sum()
    assert np.bincount(owners[0])[-1] == odd.arrays["force_mask"].sum()
    gamma_known, gamma_unknown = (
        compute_gamma(basis, active_set, [odd])[0][-1] for active_set in (without_mask, with_mask)
    )
    assert gamma_known <= 1.01
    assert gamma_unknown > 2


def test_gamma_is_at_most_one_on_the_training_set_and_large_outside(al_labels, small_basis):
    basis = build_basis(small_basis, ["Al"])
    active_set = compute_active_set(basis, al_labels)
    inside = np.concatenate(compute_gamma(basis, active_set, al_labels))
    assert inside.min() > 0
    assert inside.max() <= 1.01
    squeezed = al_labels[0].copy()
    squeezed.set_cell(squeezed.cell[:] * 0.85, scale_atoms=True)
    assert compute_gamma(basis, active_set, [squeezed])[0].max() > 5


def test_open_directions_have_the_gamma_of_empty_space(al_labels, small_basis):
    """A slab with one open direction and the same slab with vacuum in a periodic cell are the same environments."""
    basis = build_basis(small_basis, ["Al"])
    active_set = compute_active_set(basis, al_labels)
    slab = al_labels[0].copy()
    slab.pbc = [True, True, False]
    padded = al_labels[0].copy()
    padded.center(vacuum=10, axis=2)
    open_slab, periodic_slab = compute_gamma(basis, active_set, [slab, padded])
    assert open_slab == pytest.approx(periodic_slab, rel=1e-9)
    assert open_slab.max() > 5


def test_reference_energies_are_those_of_generation_zero(al_labels):
    data = build_training_set([al_labels[:4], al_labels[4:]], held_out_fraction=0.0)
    alone = build_training_set([al_labels[:4]], held_out_fraction=0.0)
    assert data.reference_energies == alone.reference_energies
    assert len(data.train) == 8


def test_a_training_set_without_energies_is_refused(al_labels):
    with pytest.raises(NoTrainingData, match="generation 0"):
        build_training_set([[with_buffer(atoms, 0.0) for atoms in al_labels]], held_out_fraction=0.0)


def test_forecasts_are_errors_and_gamma_of_labels_that_the_potential_has_not_seen(al_labels, small_basis, tmp_path):
    known, strained = al_labels[:6], al_labels[6].copy()
    strained.set_cell(0.93 * strained.cell[:], scale_atoms=True)
    strained.calc = EMT()
    new = [al_labels[7], strained]
    basis, data = fit(known, small_basis, "linear", tmp_path)
    active_set = compute_active_set(basis, data.train)
    like_the_known, far_off = forecast_labels(basis, active_set, new, data.reference_energies)
    for forecast, label in zip((like_the_known, far_off), new, strict=True):
        assert np.array_equal(forecast.get_forces(), label.get_forces())
        assert forecast.arrays["gamma"].shape == (len(label),)
    assert far_off.arrays["gamma"].max() > 5 * like_the_known.arrays["gamma"].max()
    errors = [compute_rmse([forecast])["force"] for forecast in (like_the_known, far_off)]
    assert errors[1] > 2 * errors[0]


def test_isolated_atoms_decide_the_reference_energies(al_labels, small_basis, tmp_path):
    """Wherever the hash puts them, and in neither the fit nor the errors, of which they know nothing."""
    atom = label_with_emt(Atoms("Al", cell=[12, 12, 12]))
    for fraction in (0.0, 0.49):
        data = build_training_set([[*al_labels, atom]], held_out_fraction=fraction)
        assert data.reference_energies == {"Al": pytest.approx(3.28)}  # E0 of EMT's potential for Al
    data = build_training_set([[*al_labels, atom]], held_out_fraction=0.0)
    frame = build_data_frame(data, small_basis.cutoff)
    assert len(frame) == len(al_labels)
    basis = fit_linear(build_basis(small_basis, ["Al"]), frame, Training(basis=small_basis))
    predictions = predict_labels(basis, data.train, data.reference_energies)
    assert predictions[-1].info["predicted_energy"] == pytest.approx(3.28)
    assert compute_rmse(predictions) == compute_rmse(predictions[:-1])
    assert compute_rmse(predictions)["energy"] < 0.02
    compute_active_set(basis, data.train)


def test_slabs_and_dimers_move_no_reference_energy(al_labels):
    slab = label_with_emt(fcc100("Al", (2, 2, 3), a=4.05, vacuum=7.0))
    assert build_training_set([[*al_labels, slab]], 0.0).reference_energies == pytest.approx(
        build_training_set([al_labels], 0.0).reference_energies
    )
