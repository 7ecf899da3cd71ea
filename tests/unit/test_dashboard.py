"""The dashboard and the generation's figure, made from a small real campaign: EMT labels, linear fits, LAMMPS runs."""

import base64
import json
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from mlip_auto.config import CampaignConfig, parse_config
from mlip_auto.dashboard import write_dashboard
from mlip_auto.dashboard_fit import judge_gamma, summarise_labels
from mlip_auto.exploration import extract_generation
from mlip_auto.export import write_card
from mlip_auto.fit_potential import fit_potential
from mlip_auto.generation_report import write_generation_figure
from mlip_auto.initial import generate_candidates
from mlip_auto.initial_sources import build_source
from mlip_auto.labelling import label_structures
from mlip_auto.lammps_input import InferenceConfig
from mlip_auto.md import LammpsRunner
from mlip_auto.paths import CampaignPaths
from mlip_auto.report_data import find_clean_time, read_traces, tabulate_forces, tabulate_forecasts, thin_by_error
from mlip_auto.selection import select_from_files
from mlip_auto.state import read_summaries
from mlip_auto.structures import read_json, read_structures, write_json, write_structures
from mlip_auto.summary import list_waiting, summarise_generation
from mlip_auto.verdict import get_failure_class, judge
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
        "walkers": [
            {"structure": CRYSTAL | {"supercell": [3, 3, 3]}, "temperatures": [300, 1500]},
            {
                "name": "squeeze",
                "structure": CRYSTAL | {"supercell": [3, 3, 3]},
                "temperatures": [[300, 600]],
                "steps": 20,
                "deform": {"strain": {"x": -0.02}},
            },
        ],
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
    for walker in base_walkers(config, number):
        settings = config.exploration
        inference = InferenceConfig(stages=walker.stages, timestep=settings.timestep, seed=walker.seed)
        start = build_source(walker.structure, config.system.elements)[0]
        scratch = paths.work(number, walker.name)
        run = files.walker(walker.name)
        outcome = LammpsRunner().run_md(start, files.potential, files.active_set, inference, run, scratch)
        outcome["walker"] = walker.name
        write_json(run.outcome, outcome)
    runs = {walker.name: files.walker(walker.name) for walker in base_walkers(config, number)}
    extracted, refused = extract_generation(config, number, runs, files.potential, files.active_set)
    write_structures(files.extracted, extracted)
    write_json(files.cuts_refused, refused)
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
    figure = r'<figure id="([\w-]+)" data-figure.*?<script type="application/json">(.*?)</script>'
    found = re.findall(figure, page, re.S)
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
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", own)
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
    figures = read_figures(page)
    outcomes = [(name, walker) for summary in read_summaries(paths) for name, walker in summary["walkers"].items()]
    halted = [(name, walker) for name, walker in outcomes if walker["outcome"] == "halted"]
    assert halted, "the campaign is meant to halt"
    for name in {name for name, _ in outcomes}:
        data = figures[f"md_{name}"]["data"]
        halts = [trace for trace in data if trace.get("mode") == "markers"]
        lines = [trace for trace in data if trace.get("mode") == "lines"]
        assert len(lines) == 3 * sum(other == name for other, _ in outcomes)  # gamma, temperature, pressure
        ends = [walker["time_ps"] for other, walker in halted if other == name]
        assert [float(decode(trace["x"])[-1]) for trace in halts] == pytest.approx(ends)
        assert all(decode(trace["y"])[-1] > config.exploration.uncertainty_threshold for trace in halts)


def test_parity_shows_the_error_of_the_summary_for_each_kind(campaign, page):
    paths, _ = campaign
    rmse = read_summaries(paths)[-1]["rmse"]
    names = [trace.get("name") or "" for trace in read_figures(page)["force_parity"]["data"]]
    assert any(name.startswith("initial, train: RMSE") for name in names)
    assert any(name.startswith("active learning, train: RMSE") for name in names)
    forces = tabulate_forces(read_structures(paths.generation(1).predictions))
    train = forces[forces["counts"] & ~forces["held_out"]]
    assert np.sqrt(np.mean((train["predicted"] - train["true"]) ** 2)) == pytest.approx(
        rmse["train"]["force"], rel=1e-5
    )


def test_forecasts_are_worse_than_the_fit_that_learnt_them(campaign):
    """Of the same structure: the error before it was trained on, from forecasts, and after, from predictions."""
    files = campaign[0].generation(1)
    before = summarise_labels(tabulate_forecasts({1: read_structures(files.forecasts)}))
    after = {
        atoms.info["structure_id"]: np.linalg.norm(atoms.get_forces() - atoms.arrays["predicted_forces"], axis=1)
        for atoms in read_structures(files.predictions)
        if not atoms.info["held_out"]
    }
    learnt = before[before["label"].isin(list(after))]
    assert len(learnt) and (learnt["gamma"] > 1).all()
    for row in learnt.itertuples():
        assert row.error > np.sqrt(np.mean(after[row.label] ** 2))
    assert not read_structures(campaign[0].generation(0).forecasts)


@pytest.mark.parametrize(("power", "words"), [(1.0, "a good guide"), (-1.0, "no guide")])
def test_the_rank_correlation_is_said_in_words(power, words):
    gamma = np.linspace(1, 9, 12)
    atoms = {"gamma": gamma, "error": gamma**power, "label": [str(i) for i in range(12)]}
    guide = judge_gamma(pd.DataFrame(atoms | {"walker": "md", "generation": 1}))
    assert guide.sentence.startswith(f"γ is {words} to the error here: over the 12 unmasked atoms of 12 new labels")
    assert f" is {power:.2f};" in guide.sentence
    assert sum(row["atoms"] for row in guide.bins) == 12


def test_few_labels_give_no_judgement(campaign):
    guide = judge_gamma(tabulate_forecasts({1: read_structures(campaign[0].generation(1).forecasts)}))
    assert guide.sentence.startswith("Too few to say: ") and guide.bins


def test_clean_time_ends_where_gamma_first_passes_the_threshold():
    trace = pd.DataFrame({"time": [0.0, 0.1, 0.2, 0.3], "gamma": [1.0, 2.0, 6.0, 3.0]})
    assert find_clean_time(trace, 5.0) == 0.1
    assert find_clean_time(trace, 7.0) == 0.3
    assert find_clean_time(trace, 0.5) == 0.0
    assert find_clean_time(trace.assign(gamma=[1.0, np.nan, 1.0, 1.0]), 5.0) == 0.0


def test_cuts_are_those_of_the_files_with_their_fate(campaign, page):
    paths, _ = campaign
    cuts = json.loads(re.search(r'id="cut-data">(.*?)</script>', page, re.S)[1])
    extracted = [atoms for number in (1, 0) for atoms in read_structures(paths.generation(number).extracted)]
    assert [cut["n_atoms"] for cut in cuts] == [len(atoms) for atoms in extracted]
    selected = {
        atoms.info["structure_id"]: atoms.info["reason"] for atoms in read_structures(paths.generation(1).selected)
    }
    for cut, atoms in zip(cuts, extracted, strict=True):
        if cut["generation"] == 0 and atoms.info["structure_id"] in selected:
            assert (cut["fate"], cut["why"]) == ("labelled", selected[atoms.info["structure_id"]])
        if cut["generation"] == 1:
            assert cut["fate"] == "waits"
        assert cut["atoms"]["gamma"][cut["atoms"]["center"]] == pytest.approx(atoms.info["gamma"], rel=5e-3)
        drawn = np.array(cut["atoms"]["x"]).T
        center = atoms.info["center_atom_index"]
        assert np.linalg.norm(drawn, axis=1) == pytest.approx(
            atoms.get_distances(center, range(len(atoms)), mic=True), abs=0.02
        )


def test_twenty_generations_are_under_8_mb(campaign, tmp_path):
    """Twenty generations with the files of the last one: as many walkers, labels and cuts as a small campaign has."""
    source, config = campaign
    paths = CampaignPaths(tmp_path)
    for number in range(20):
        shutil.copytree(source.generation(1).directory, paths.generation(number).directory)
        write_json(paths.generation(number).summary, read_json(source.generation(1).summary) | {"generation": number})
    write_dashboard(paths, config)
    assert paths.dashboard.stat().st_size < 8e6


def test_a_campaign_under_way_says_so(tmp_path):
    paths = CampaignPaths(tmp_path)
    write_dashboard(paths, parse_config(CONFIG))
    assert "Running: generation 0 is not finished." in paths.dashboard.read_text()


def test_verdicts(campaign):
    summaries = read_summaries(campaign[0])
    latest = summaries[-1]
    clean = {"outcome": "completed", "temperature": 900.0, "conditions": "900 K, fixed cell", "time_ps": 2.0}
    converged = latest | {"decision": "converged", "confirmations_done": 2, "walkers": {"md_900K": clean}}
    stopped = latest | {"decision": "stopped", "reason": "generation 1 added no label"}
    verdicts = [judge([summaries[0], summary], 1) for summary in (latest, converged, stopped)]
    assert [verdict.tone for verdict in verdicts] == ["open", "good", "bad"]
    assert verdicts[0].headline.startswith("Not converged yet: in generation 1 MD of md_1500K halted")
    assert "at 900 K, 2 ps each, and 2 fresh velocity seeds ran clean too" in verdicts[1].headline
    assert verdicts[2].headline == "Not converged. Stopped in generation 1: generation 1 added no label."
    assert f"{sum(summary['labelled'] for summary in summaries)} labels in 2 generations" in verdicts[0].details[1]


def test_a_ramp_is_not_taken_for_its_last_temperature(campaign, page):
    """On the page, in the verdict and on the card: the run under a ramp and a deformation, beside plain ones."""
    paths, config = campaign
    conditions = "300 to 600 K, x deformed"
    summary = read_summaries(paths)[-1]
    assert summary["walkers"]["squeeze_300-600K"]["conditions"] == conditions
    row = re.search(r"<tr[^>]*><td class=\"text\">squeeze_300-600K</td>.*?</tr>", page, re.S)
    assert row is not None and f">{conditions}<" in row[0] and "fixed cell" not in row[0]
    headline = judge([summary | {"decision": "converged"}], 1).headline
    assert f"MD ran without halting at 300 and 1500 K and at ({conditions}), " in headline
    card = write_card(config, summary, paths.generation(1), True, "")
    assert f"| squeeze_300-600K | fcc, 3x3x3 | {conditions} | 0.04 |" in card
    assert "| md_300K | fcc, 3x3x3 | 300 K, fixed cell |" in card


def test_what_is_broken_is_said_first(campaign):
    summaries = read_summaries(campaign[0])
    failures = ["not_converged: no convergence", "not_converged: none", "out_of_time: 60 s"]
    name = next(iter(summaries[-1]["walkers"]))
    crashed = summaries[-1]["walkers"][name] | {"outcome": "crashed", "reason": "temperature above 10000 K at step 40"}
    latest = summaries[-1] | {"walkers": summaries[-1]["walkers"] | {name: crashed}}
    verdict = judge([summaries[0], latest], 1, failures)
    assert verdict.tone == "bad"
    assert verdict.headline.startswith(f"MD of {name} crashed; 3 labels failed. Not converged yet")
    assert verdict.details[0] == f"MD of {name} crashed: temperature above 10000 K at step 40."
    assert verdict.details[1] == "Labels that failed: 3, by reason: not converged (2), out of time (1)."

    converged = summaries[-1] | {"decision": "converged"}
    assert judge([converged], 1, failures[:1]).headline.startswith("Converged in generation 1, although 1 label failed")
    broken = judge(summaries, 2, failures, broken="collect_labels failed; the end of its log:\n   TooManyFailures\n")
    assert broken.headline == "Broken in generation 2: collect_labels failed; the end of its log:"
    assert broken.details[0] == "TooManyFailures"
    assert get_failure_class("largest force 40 eV/Å, 9 robust deviations") == "outlier"


def test_a_run_that_broke_in_generation_0_has_a_page_too(tmp_path):
    paths = CampaignPaths(tmp_path)
    write_dashboard(paths, parse_config(CONFIG), broken="generate_candidates failed")
    assert "Broken in generation 0: generate_candidates failed" in paths.dashboard.read_text()


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
    traces = read_traces(files, summary["walkers"])
    for name, walker in summary["walkers"].items():
        assert traces[name]["gamma"].max() == pytest.approx(walker["gamma_max"])
        assert traces[name]["time"].iloc[-1] == pytest.approx(walker["time_ps"])
