"""results/dashboard.html: where the campaign stands, in one page that needs no network."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
import yaml
from plotly.offline import get_plotlyjs

from mlip_auto import __version__
from mlip_auto import dashboard_figures as draw
from mlip_auto.config import CampaignConfig
from mlip_auto.paths import CampaignPaths
from mlip_auto.report_data import read_gamma_traces
from mlip_auto.state import Decision, find_warnings, last_generation, read_summaries
from mlip_auto.structures import read_structures, write_atomically

TEMPLATE = Path(__file__).with_name("dashboard.html.j2")
Summary = Mapping[str, Any]


def write_dashboard(paths: CampaignPaths, config: CampaignConfig) -> None:
    """Write the page from the summaries, MD logs and predictions of all finished generations.

    A campaign without a finished generation gives a page that says so.
    """
    summaries = read_summaries(paths)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
        config=config,
        config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        summaries=summaries,
        verdict=judge(summaries, last_generation(paths)),
        warnings=find_warnings(summaries),
        worst_true=find_worst_true,
        figures=_draw_figures(paths, config, summaries),
        to_json=_to_json,
        max_points=draw.MAX_PARITY_POINTS,
        plotly=get_plotlyjs(),
        version=__version__,
        written=datetime.now().astimezone().replace(microsecond=0),
    )
    with write_atomically(paths.dashboard) as aside:
        aside.write_text(page)


def judge(summaries: Sequence[Summary], generation: int) -> dict[str, Any]:
    """The verdict: `headline`, `details` (sentences) and `tone` (good, bad, open).

    Parameters
    ----------
    generation
        The last generation with files, finished or not.
    """
    if not summaries:
        return {"tone": "open", "headline": "Running: generation 0 is not finished.", "details": []}
    latest = summaries[-1]
    number = latest["generation"]
    match Decision(latest["decision"]):
        case Decision.CONVERGED:
            tone = "good"
            headline = f"Converged in generation {number}: MD ran without halting{_describe_conditions(latest)}."
        case Decision.STOPPED:
            tone, headline = "bad", f"Not converged. Stopped in generation {number}: {latest['reason']}."
        case Decision.CONFIRM:
            tone = "open"
            headline = (
                f"Not converged yet: MD of generation {number} ran without halting, its confirmations are to come."
            )
        case Decision.NEXT_GENERATION:
            tone = "open"
            ended = [
                f"{name} {walker['outcome']}"
                for name, walker in latest["walkers"].items()
                if walker["outcome"] in ("halted", "crashed")
            ]
            headline = (
                f"Not converged yet: in generation {number} MD of {', '.join(ended)}; "
                f"generation {number + 1} learns from it."
            )
    details = [_describe_error(latest), _describe_cost(summaries)]
    details += [
        f"MD of {name} crashed: {walker['reason']}."
        for name, walker in latest["walkers"].items()
        if walker["outcome"] == "crashed"
    ]
    if generation > number:
        details.append(f"Generation {generation} is under way.")
    return {"tone": tone, "headline": headline, "details": details}


def find_worst_true(summary: Summary, quantity: str) -> float | None:
    """Largest true RMSE over the target conditions (eV/atom or eV/Å); None where there is no reference."""
    return max((error[quantity] for error in (summary["rmse"]["true"] or {}).values()), default=None)


def _describe_conditions(summary: Summary) -> str:
    walkers = summary["walkers"].values()
    temperatures = sorted({walker["temperature"] for walker in walkers})
    times = [walker["time_ps"] for walker in walkers]
    length = f"{min(times):.3g}" + (f" to {max(times):.3g}" if max(times) > min(times) else "")
    text = f" at {', '.join(f'{temperature:g}' for temperature in temperatures)} K, {length} ps each"
    confirmations = summary["confirmations_done"]
    if confirmations:
        text += f", and {confirmations} fresh velocity seed{'s' * (confirmations > 1)} ran clean too"
    return text


def _describe_error(summary: Summary) -> str:
    errors = summary["rmse"]
    if errors["true"]:
        walker, error = max(errors["true"].items(), key=lambda item: item[1]["force"])
        kind = f"True error against MD of the oracle, worst at {walker}"
    elif errors["held_out"]:
        kind, error = "Error on held-out labels", errors["held_out"]
    else:
        kind, error = "Error on the training labels (nothing is held out)", errors["train"]
    energy = "" if error["energy"] is None else f", energy {1000 * error['energy']:.3g} meV/atom"
    return f"{kind}: force {1000 * error['force']:.3g} meV/Å{energy}."


def _describe_cost(summaries: Sequence[Summary]) -> str:
    labels, failed, minutes, hours = (
        sum(summary[key] for summary in summaries) for key in ("labelled", "failed", "minutes", "core_hours")
    )
    generations = len(summaries)
    failures = f" ({failed} more failed)" if failed else ""
    return (
        f"{labels} labels{failures} in {generations} generation{'s' * (generations > 1)}, "
        f"{minutes:.1f} minutes, {f'{hours:.3g} core-hours' if hours >= 1 else f'{60 * hours:.2g} core-minutes'}."
    )


def _draw_figures(paths: CampaignPaths, config: CampaignConfig, summaries: Sequence[Summary]) -> dict[str, go.Figure]:
    if not summaries:
        return {}
    threshold = config.exploration.uncertainty_threshold
    traces = {
        summary["generation"]: read_gamma_traces(paths.generation(summary["generation"]), summary["walkers"])
        for summary in summaries
    }
    predictions = read_structures(paths.generation(summaries[-1]["generation"]).predictions)
    return {
        "force_error": draw.plot_errors(summaries, "force"),
        "energy_error": draw.plot_errors(summaries, "energy"),
        "largest_gamma": draw.plot_largest_gamma(summaries, threshold),
        "counts": draw.plot_counts(summaries),
        "md": draw.plot_md(summaries, traces, threshold),
        "force_parity": draw.plot_force_parity(predictions),
        "energy_parity": draw.plot_energy_parity(predictions),
    }


def _to_json(figure: go.Figure) -> str:
    """JSON that no HTML parser takes for markup."""
    return figure.to_json().replace("<", "\\u003c")
