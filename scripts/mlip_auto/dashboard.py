"""results/dashboard.html: where the campaign stands, in one page that needs no network."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import plotly.graph_objects as go
import yaml
from plotly.offline import get_plotlyjs

from mlip_auto import __version__
from mlip_auto import dashboard_figures as draw
from mlip_auto.config import CampaignConfig
from mlip_auto.dashboard_cuts import describe_cuts
from mlip_auto.dashboard_fit import MAX_PARITY_POINTS, judge_gamma, plot_guide, plot_parity
from mlip_auto.dashboard_labels import count_rungs, list_failures, plot_label_times
from mlip_auto.dashboard_style import GAMMA_SCALE, GENERATION_SCALE
from mlip_auto.paths import CampaignPaths
from mlip_auto.report_data import (
    get_panel,
    read_traces,
    tabulate_energies,
    tabulate_forces,
    tabulate_forecasts,
    tabulate_labels,
)
from mlip_auto.state import find_warnings, last_generation, read_summaries
from mlip_auto.structures import read_structures, write_atomically
from mlip_auto.verdict import find_worst_true, judge

ASSETS = Path(__file__).parent
Summary = Mapping[str, Any]


def write_dashboard(paths: CampaignPaths, config: CampaignConfig, broken: str = "") -> None:
    """Write the page from what the generations' files say.

    A campaign without a finished generation gives a page that says so.

    Parameters
    ----------
    broken
        The error that ended the run: the page says it first.
    """
    summaries = read_summaries(paths)
    last = last_generation(paths)
    labels = tabulate_labels(
        paths, [number for number in range(last + 1) if paths.generation(number).selected.exists()]
    )
    failures = labels.loc[labels["status"] == "failed", "reason"].to_list()
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(ASSETS),
    )
    page = environment.get_template("dashboard.html.j2").render(
        config=config,
        config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        summaries=summaries,
        panels=_list_panels(summaries),
        panel_of=get_panel,
        broken=broken,
        verdict=judge(summaries, last, failures, broken),
        warnings=find_warnings(summaries),
        worst_true=find_worst_true,
        rungs=count_rungs(labels),
        failures=list_failures(labels),
        max_points=MAX_PARITY_POINTS,
        gamma_scale=GAMMA_SCALE,
        generation_colors=[color for _, color in GENERATION_SCALE],
        to_json=_to_json,
        style=(ASSETS / "dashboard.css").read_text(),
        script=(ASSETS / "dashboard.js").read_text(),
        plotly=get_plotlyjs(),
        version=__version__,
        written=datetime.now().astimezone().replace(microsecond=0),
        **_describe_generations(paths, config, summaries, labels),
    )
    with write_atomically(paths.dashboard) as aside:
        aside.write_text(page)


def _list_panels(summaries: Sequence[Summary]) -> list[str]:
    """Walkers, confirmations left out, in the order of the config."""
    return list(dict.fromkeys(get_panel(name) for summary in summaries for name in summary["walkers"]))


def _describe_generations(
    paths: CampaignPaths, config: CampaignConfig, summaries: Sequence[Summary], labels: pd.DataFrame
) -> dict[str, Any]:
    """Figures, and the tables that need more than the summaries; empty before the first summary."""
    if not summaries:
        return {}
    numbers = [summary["generation"] for summary in summaries]
    threshold = config.exploration.uncertainty_threshold
    traces = {
        summary["generation"]: read_traces(paths.generation(summary["generation"]), summary["walkers"])
        for summary in summaries
    }
    coverage = draw.tabulate_coverage(summaries, traces, threshold, config.exploration.timestep)
    predictions = read_structures(paths.generation(numbers[-1]).predictions)
    forces = tabulate_forces(predictions)
    forecasts = tabulate_forecasts({number: read_structures(paths.generation(number).forecasts) for number in numbers})
    figures: dict[str, go.Figure] = {
        "force_error": draw.plot_errors(summaries, "force"),
        "energy_error": draw.plot_errors(summaries, "energy"),
        "largest_gamma": draw.plot_largest_gamma(summaries, threshold),
        "counts": draw.plot_counts(summaries),
        **{f"md_{panel}": draw.plot_walker(panel, summaries, traces, threshold) for panel in _list_panels(summaries)},
        "coverage_map": draw.plot_coverage(coverage),
        "force_parity": plot_parity(forces, "force component", "eV/Å"),
        "energy_parity": plot_parity(tabulate_energies(predictions), "energy", "eV/atom"),
        "gamma_guide": plot_guide(forecasts, threshold),
        "label_times": plot_label_times(labels),
    }
    return {
        "figures": figures,
        "coverage": coverage.sort_values("generation", ascending=False, kind="stable").to_dict("records"),
        "masked_drawn": not forces["counts"].all(),
        "guide": judge_gamma(forecasts),
        "cuts": describe_cuts(paths, numbers),
        "refused_cuts": [
            (summary["generation"], refusal)
            for summary in reversed(summaries)
            for refusal in summary.get("cuts_refused", [])
        ],
    }


def _to_json(content: Any) -> str:
    """JSON, of a figure or of plain data, that no HTML parser takes for markup."""
    text = content.to_json() if isinstance(content, go.Figure) else json.dumps(content, allow_nan=False)
    return text.replace("<", "\\u003c")
