"""A short campaign for each way of cutting: two generations on Al by EMT, by the loop of benchmarks/cutting.py."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml
from ase import Atoms
from pyace.basis import BBasisConfiguration

from mlip_auto.ace import build_campaign_basis, compute_active_set, compute_gamma, load_active_set
from mlip_auto.config import CampaignConfig, parse_config
from mlip_auto.fitting import build_data_frame, fit_linear
from mlip_auto.lammps_output import read_last_frames
from mlip_auto.paths import CampaignPaths
from mlip_auto.structures import read_json, read_structures
from mlip_auto.training import build_training_set

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "cutting.py"
CONTENT = yaml.safe_load((Path(__file__).parent / "tiny.yaml").read_text())
WALKER = "md_900K"
CUTOFF, TRAINED = 4.0, 3.4  # Å: half a box of two crystal cells; the first shell
MODES = {
    "cell": {"mode": "cell"},
    "box": {"mode": "box", "box_side": 8.1, "core_radius": TRAINED, "trained_radius": TRAINED},
    "cluster": {"mode": "cluster", "core_radius": TRAINED, "buffer": 2.0, "trained_radius": TRAINED},
    "auto": {
        "mode": "auto",
        "max_atoms": 100,
        "box_side": 8.1,
        "trained_radius": TRAINED,
    },  # too few for the cell: a box
}


@dataclass(frozen=True)
class Campaign:
    mode: str
    config: CampaignConfig
    paths: CampaignPaths

    @property
    def cuts(self) -> list[Atoms]:
        return read_structures(self.paths.generation(0).extracted)

    @property
    def labels(self) -> list[list[Atoms]]:
        return [read_structures(self.paths.generation(number).labels) for number in range(2)]


@pytest.fixture(scope="module", params=MODES)
def campaign(request, tmp_path_factory) -> Campaign:
    """Generation 0 knows little and halts; generation 1 is trained on what was cut there."""
    content = CONTENT | {"extraction": MODES[request.param] | {"max_clusters": 2}}
    content["training"] = CONTENT["training"] | {
        "basis": CONTENT["training"]["basis"] | {"cutoff": CUTOFF},
        "held_out_fraction": 0.0,
    }
    walker = {"structure": {"prototype": "fcc", "a": 4.05, "supercell": [3, 3, 3]}, "temperatures": [900]}
    content["exploration"] = CONTENT["exploration"] | {"walkers": [walker]}
    content["loop"] = {"max_generations": 2, "confirmations": 0}
    config = parse_config(content)
    folder = tmp_path_factory.mktemp(request.param)
    row = load_benchmark().run_campaign(config, folder, None)
    assert row["generations"] == 2
    return Campaign(request.param, config, CampaignPaths(folder))


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cutting_benchmark", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cuts_are_of_their_mode(campaign):
    (frame,) = read_last_frames(campaign.paths.generation(0).walker(WALKER).dump)
    assert campaign.cuts
    for cut in campaign.cuts:
        core = cut.arrays["force_mask"].astype(bool)
        center = cut.info["center_atom_index"]
        near = cut.get_distances(center, range(len(cut)), mic=True) < TRAINED
        if campaign.mode == "cell":
            assert len(cut) == len(frame) == 108
            assert core.all() and cut.info["energy_weight"] == 1
        else:
            np.testing.assert_array_equal(core, near)
            assert 10 < core.sum() < len(cut) < len(frame)
            assert cut.info["energy_weight"] == 0
        if campaign.mode in ("box", "auto"):
            assert cut.pbc.all() and len(cut) == 32
            np.testing.assert_allclose(cut.cell[:], frame.cell[:] * 2 / 3, atol=1e-4)
        if campaign.mode == "cluster":
            assert not cut.pbc.any()


def test_cuts_are_audited(campaign):
    for cut in campaign.cuts:
        assert cut.info["cut_mode"] == {"auto": "box"}.get(campaign.mode, campaign.mode)
        if campaign.mode == "auto":
            assert "108 atoms, more than extraction.max_atoms (100)" in cut.info["mode_reason"]
        assert cut.info["audit_gamma_center"] == pytest.approx(cut.info["gamma"], rel=0.01)
        core = cut.arrays["force_mask"].astype(bool)
        assert cut.info["audit_force_change"] == pytest.approx(cut.arrays["force_change"][core].max(), abs=1e-6)
        assert cut.info["audit_force_change"] <= campaign.config.extraction.max_force_change
        if campaign.mode == "cell":
            assert cut.info["audit_force_change"] < 1e-6
        distances = cut.get_all_distances(mic=True)
        assert cut.info["audit_min_distance"] == pytest.approx(distances[distances > 0].min())


def test_gamma_of_the_centre_is_that_of_md(campaign):
    files = campaign.paths.generation(0)
    basis, active_set = BBasisConfiguration(str(files.potential)), load_active_set(files.active_set)
    for cut, gamma in zip(campaign.cuts, compute_gamma(basis, active_set, campaign.cuts), strict=True):
        assert cut.info["gamma"] > campaign.config.exploration.gamma_select
        assert gamma[cut.info["center_atom_index"]] == pytest.approx(cut.info["gamma"], rel=0.01)


def test_the_next_generation_is_fitted_to_the_core_of_the_cuts(campaign):
    """Neither the fit nor the active set nor the errors change when the forces and places of buffer atoms do."""
    files = campaign.paths.generation(1)
    data = build_training_set(campaign.labels, 0.0)
    cuts = [atoms for atoms in data.train if atoms.info["config_type"] == "active_learning"]
    assert cuts
    for atoms in cuts:
        atoms.calc.results["forces"] = atoms.get_forces().copy()
        atoms.calc.results["forces"][atoms.arrays["force_mask"] == 0] = 1e3  # what the fit must not see
        if atoms.info["energy_weight"] == 0:
            atoms.calc.results["energy"] = 1e6
    frame = build_data_frame(data, CUTOFF)
    refitted = fit_linear(build_campaign_basis(campaign.config), frame, campaign.config.training)
    fitted = BBasisConfiguration(str(files.potential))
    np.testing.assert_allclose(refitted.get_all_coeffs(), fitted.get_all_coeffs(), rtol=1e-6, atol=1e-9)
    used = pd.read_pickle(files.training / "dataset.pckl.gzip", compression="gzip")
    for atoms, weights in zip(data.train, used["w_forces"], strict=True):
        np.testing.assert_array_equal(weights, atoms.arrays["force_mask"])

    active_set = load_active_set(files.active_set)
    np.testing.assert_allclose(active_set[0], compute_active_set(fitted, data.train)[0], rtol=1e-6, atol=1e-9)
    known, unknown = [], [0.0]
    for atoms, gamma in zip(cuts, compute_gamma(fitted, active_set, cuts), strict=True):
        core = atoms.arrays["force_mask"].astype(bool)
        known.append(gamma[core].max())
        unknown.append(gamma[~core].max(initial=0.0))
    assert max(known) < 1.1  # MaxVol's tolerance
    if campaign.mode == "cluster":
        assert max(unknown) > 5  # the surface did not become known

    errors = np.concatenate(
        [
            (atoms.arrays["predicted_forces"] - atoms.get_forces())[atoms.arrays["force_mask"].astype(bool)]
            for atoms in read_structures(files.predictions)
        ]
    )
    rmse = read_json(files.metrics)["rmse"]["train"]["force"]
    assert rmse == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
