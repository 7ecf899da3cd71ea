"""One mask, honoured everywhere: absurd forces of buffer atoms and absurd energies of cuts change nothing."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlip_auto.ace import build_basis, compute_active_set
from mlip_auto.config import Training
from mlip_auto.fitting import build_data_frame, fit_linear
from mlip_auto.report_data import tabulate_energies, tabulate_forces, tabulate_forecasts
from mlip_auto.training import build_training_set, compute_rmse, predict_labels


def mask_half(atoms: Atoms, absurd: float) -> Atoms:
    """The label as a cut: half of it is buffer, whose forces, like the energy, are off by `absurd`."""
    cut = atoms.copy()
    mask = np.arange(len(atoms)) < len(atoms) // 2
    cut.arrays["force_mask"] = mask.astype(int)
    cut.info["energy_weight"] = 0.0
    forces = np.where(mask[:, None], atoms.get_forces(), atoms.get_forces() + absurd)
    cut.calc = SinglePointCalculator(cut, energy=atoms.get_potential_energy() + absurd, forces=forces)
    return cut


@pytest.fixture
def consumers(al_labels, al_potential, small_basis) -> dict[str, Callable[[Sequence[Atoms]], object]]:
    """What is made of labels, by name: each gives plain numbers that can be compared."""

    def predict(labels):
        data = build_training_set([al_labels[:4]], 0.0)
        predictions = predict_labels(al_potential.configuration, labels, data.reference_energies)
        for atoms in predictions:
            atoms.info.update(held_out=False, config_type="active_learning")
            atoms.arrays["gamma"] = al_potential.evaluate(atoms).gamma
        return predictions

    def fit(labels):
        data = build_training_set([labels], 0.0)
        basis = build_basis(small_basis, ["Al"])
        frame = build_data_frame(data, small_basis.cutoff)
        return np.array(fit_linear(basis, frame, Training(basis=small_basis)).get_all_coeffs())

    return {
        "fit": fit,
        "error metrics": lambda labels: list(compute_rmse(predict(labels)).values()),
        "force parity": lambda labels: tabulate_forces(predict(labels)).query("counts")[["true", "predicted"]],
        "energy parity": lambda labels: tabulate_energies(predict(labels))[["true", "predicted"]],
        "gamma as a guide": lambda labels: tabulate_forecasts({1: predict(labels)})[["gamma", "error"]],
    }


@pytest.mark.parametrize("name", ["fit", "error metrics", "force parity", "energy parity", "gamma as a guide"])
def test_what_is_masked_is_not_seen(name, consumers, al_labels):
    """And what is not masked is: without the mask the same absurd label shows."""
    masked, absurd, unmasked = ([*al_labels[:7], mask_half(al_labels[7], value)] for value in (0.0, 1e3, 1e3))
    del unmasked[-1].arrays["force_mask"], unmasked[-1].info["energy_weight"]
    expected, found, spoilt = (np.asarray(consumers[name](labels)) for labels in (masked, absurd, unmasked))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert spoilt.shape != expected.shape or np.abs(spoilt - expected).max() > 1


def test_environments_of_buffer_atoms_stay_unknown(al_labels, small_basis):
    """Atoms that are all buffer add no row to the active set, however odd they are."""
    basis = build_basis(small_basis, ["Al"])
    cut = mask_half(al_labels[7], 0.0)
    cut.positions[-1] += [0.9, 0.4, 0.2]
    cut.arrays["force_mask"][:] = 0
    without, with_cut = (compute_active_set(basis, labels)[0] for labels in (al_labels[:7], [*al_labels[:7], cut]))
    np.testing.assert_allclose(with_cut, without)
    del cut.arrays["force_mask"]
    assert not np.allclose(compute_active_set(basis, [*al_labels[:7], cut])[0], without)
