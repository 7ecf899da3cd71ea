"""The dashboard and the generation's figure, made from a small real campaign: EMT labels, linear fits, LAMMPS runs."""

import base64
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from mlip_auto.config import CampaignConfig, parse_config
from mlip_auto.dashboard import judge, write_dashboard
from mlip_auto.extraction import extract_from_walker
from mlip_auto.fit_potential import fit_potential
from mlip_auto.generation_report import write_generation_figure
from mlip_auto.initial import generate_candidates
from mlip_auto.initial_sources import build_source
from mlip_auto.labelling import label_structures
from mlip_auto.lammps_input import InferenceConfig
from mlip_auto.lammps_output import read_last_frames
from mlip_auto.md import LammpsRunner
from mlip_auto.paths import CampaignPaths
from mlip_auto.report_data import collect_forces, read_gamma_traces, thin_by_error
from mlip_auto.selection import select_from_files
from mlip_auto.state import read_summaries
from mlip_auto.structures import read_json, read_structures, write_json, write_structures
from mlip_auto.summary import list_waiting, summarise_generation
from mlip_auto.walkers import base_walkers

CRYSTAL = {"prototype": "fcc", "a": 4.05}
CONFIG = {
    "name": "al-small",
    "seed": 7,
    "system": {"elements": ["Al"]},
    "initial": {"structures": [CRYSTAL | {"supercell": [2, 2, 2], "count": 10, "rattles": [0.08]}]},
    "dft": {"code": "emt"},
    "training": {
        "solver": "linear",
        "repulsion": "none",
        "held_out_fraction": 0.2,
        "basis": {
            "cutoff": 4.5,
            "number_of_functions_per_element": 30,
            "nradmax_by_orders": [8, 3, 2],
            "lmax_by_orders": [0, 3, 2],
        },
    },
    "exploration": {
        "timestep": 2.0,
        "steps": 100,
        "walkers": [{"structure": CRYSTAL | {"supercell": [3, 3, 3]}, "temperatures": [300, 1500]}],
    },
    "extraction": {"mode": "cell", "max_clusters": 1},
}


def run_generation(paths: CampaignPaths, config: CampaignConfig, number: int) -> None:
    files = paths.generation(number)
    earlier = [paths.generation(n) for n in range(number)]
    candidates = list_waiting(earlier[-1]) if earlier else generate_candidates(config)
    write_structures(files.candidates, candidates)
    last = earlier[-1] if earlier else None
    selected = select_from_files(
        config,
        candidates,
        [one.labels for one in earlier],
        last.potential if last else None,
        last.active_set if last else None,
    )
    write_structures(files.selected, selected)
    shard = label_structures(read_structures(files.selected), config.dft)
    write_structures(files.shard_labels("0000"), shard.labels)
    write_json(files.shard_record("0000"), shard.content)
    write_structures(files.labels, shard.labels)
    labels = [one.labels for one in [*earlier, files]]
    known = (last.potential, last.active_set) if last else (None, None)
    fit_potential(config, number, labels, *known, [], paths.work(number, "training"), files, threads=1)
    extracted = []
    for walker in base_walkers(config, number):
        settings = config.exploration
        inference = InferenceConfig(
            temperature=walker.temperature, timestep=settings.timestep, steps=walker.steps, seed=walker.seed
        )
        start = build_source(walker.structure, config.system.elements)[0]
        scratch = paths.work(number, walker.name)
        run = files.walker(walker.name)
        outcome = LammpsRunner().run_md(start, files.potential, files.active_set, inference, run, scratch)
        outcome["walker"] = walker.name
        write_json(run.outcome, outcome)
        extracted += extract_from_walker(read_last_frames(run.dump, 3), outcome, config, number)[0]
    write_structures(files.extracted, extracted)
    outcomes = [files.walker(walker.name).outcome for walker in base_walkers(config, number)]
    write_json(files.summary, summarise_generation(files, number, 0, outcomes, config))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory) -> tuple[CampaignPaths, CampaignConfig]:
    paths = CampaignPaths(tmp_path_factory.mktemp("campaign"))
    config = parse_config(CONFIG | {"dft": {"code": "emt", "store": str(paths.root / "store")}})
    for number in range(2):
        run_generation(paths, config, number)
    return paths, config


@pytest.fixture(scope="module")
def page(campaign) -> str:
    write_dashboard(*campaign)
    return campaign[0].dashboard.read_text()


def read_figures(page: str) -> dict[str, dict]:
    """Every figure's plotly specification, by its id."""
    found = re.findall(r'<figure id="(\w+)">.*?<script type="application/json">(.*?)</script>', page, re.S)
    return {name: json.loads(specification) for name, specification in found}


def decode(values) -> np.ndarray:
    """Plotly's arrays: plain lists, or base64 of the raw numbers."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return np.array(values, dtype=float)


def test_the_page_needs_no_other_file(page):
    own = page.replace(get_plotlyjs(), "")
    assert len(own) < len(page)
    assert page.count(get_plotlyjs()) == 1
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", own)
    assert "http" not in own


def test_curves_are_those_of_the_summaries(campaign, page):
    summaries = read_summaries(campaign[0])
    figures = read_figures(page)
    train = next(trace for trace in figures["force_error"]["data"] if trace["name"] == "train")
    assert decode(train["y"]) == pytest.approx([1000 * summary["rmse"]["train"]["force"] for summary in summaries])
    counts = {trace["name"]: list(decode(trace["y"])) for trace in figures["counts"]["data"]}
    assert counts == {key: [summary[key] for summary in summaries] for key in counts}
    assert set(counts) == {"candidates", "selected", "labelled", "failed"}


def test_md_curves_end_where_the_runs_ended(campaign, page):
    paths, config = campaign
    data = read_figures(page)["md"]["data"]
    halts = [trace for trace in data if trace["name"] == "halted"]
    outcomes = [walker for summary in read_summaries(paths) for walker in summary["walkers"].values()]
    halted = [outcome for outcome in outcomes if outcome["outcome"] == "halted"]
    assert halted, "the campaign is meant to halt"
    assert len(data) - len(halts) == len(outcomes)
    assert [float(decode(trace["x"])[-1]) for trace in halts] == pytest.approx(
        [outcome["time_ps"] for outcome in halted]
    )
    assert all(decode(trace["y"])[-1] > config.exploration.uncertainty_threshold for trace in halts)


def test_parity_shows_the_error_of_the_summary(campaign, page):
    paths, _ = campaign
    rmse = read_summaries(paths)[-1]["rmse"]
    names = [trace.get("name") for trace in read_figures(page)["force_parity"]["data"]]
    assert f"train: RMSE {1000 * rmse['train']['force']:.3g} meV/Å" in names
    true, predicted, held_out = collect_forces(read_structures(paths.generation(1).predictions))
    assert np.sqrt(np.mean((predicted - true)[~held_out] ** 2)) == pytest.approx(rmse["train"]["force"], rel=1e-5)


def test_a_campaign_under_way_says_so(tmp_path):
    paths = CampaignPaths(tmp_path)
    write_dashboard(paths, parse_config(CONFIG))
    assert "Running: generation 0 is not finished." in paths.dashboard.read_text()


def test_verdicts(campaign):
    summaries = read_summaries(campaign[0])
    latest = summaries[-1]
    clean = {"outcome": "completed", "temperature": 900.0, "time_ps": 2.0}
    converged = latest | {"decision": "converged", "confirmations_done": 2, "walkers": {"md_900K": clean}}
    stopped = latest | {"decision": "stopped", "reason": "generation 1 added no label"}
    verdicts = [judge([summaries[0], summary], 1) for summary in (latest, converged, stopped)]
    assert [verdict["tone"] for verdict in verdicts] == ["open", "good", "bad"]
    assert verdicts[0]["headline"].startswith("Not converged yet: in generation 1 MD of md_1500K halted")
    assert "at 900 K, 2 ps each, and 2 fresh velocity seeds ran clean too" in verdicts[1]["headline"]
    assert verdicts[2]["headline"] == "Not converged. Stopped in generation 1: generation 1 added no label."
    assert f"{sum(summary['labelled'] for summary in summaries)} labels in 2 generations" in verdicts[0]["details"][1]


def test_text_of_the_user_is_not_markup(campaign):
    paths, config = campaign
    hostile = config.model_copy(update={"dft": config.dft.model_copy(update={"code": "<script>alert(1)</script>"})})
    write_dashboard(paths, hostile)
    assert "<script>alert" not in paths.dashboard.read_text()


def test_thinned_points_keep_the_largest_error():
    rng = np.random.default_rng(1)
    true = rng.normal(size=5000)
    predicted = true + 0.01 * rng.normal(size=5000)
    predicted[1234] += 1.0
    kept = thin_by_error(true, predicted, 100)
    assert len(set(kept)) == 100
    assert 1234 in kept
    every_error, kept_errors = np.abs(predicted - true), np.abs(predicted - true)[kept]
    assert np.median(kept_errors) == pytest.approx(np.median(every_error), rel=0.05)


def test_figure_of_a_generation_names_its_runs_and_errors(campaign):
    paths, config = campaign
    files = paths.generation(1)
    write_generation_figure(files, config)
    text = " ".join(ElementTree.parse(files.figure).getroot().itertext())
    summary = read_json(files.summary)
    for name, walker in summary["walkers"].items():
        assert f"{name}: {walker['outcome']}" in text
    assert f"train: RMSE {1000 * summary['rmse']['train']['force']:.3g} meV/Å" in text
    assert "time (ps)" in text
    assert files.figure.stat().st_size < 500_000


def test_gamma_traces_are_those_of_the_log(campaign):
    files = campaign[0].generation(0)
    summary = read_json(files.summary)
    traces = read_gamma_traces(files, summary["walkers"])
    for name, walker in summary["walkers"].items():
        assert traces[name]["gamma"].max() == pytest.approx(walker["gamma_max"])
        assert traces[name]["time"].iloc[-1] == pytest.approx(walker["time_ps"])
