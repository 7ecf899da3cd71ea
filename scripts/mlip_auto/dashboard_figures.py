"""The dashboard's plotly figures, each a function of what the generations' files say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from ase import Atoms
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from mlip_auto.report_data import collect_forces, get_panel, thin_by_error
from mlip_auto.structures import get_energy_weight

BLUE, ORANGE, GREEN, GREY, RED = "#1f5a99", "#c2541b", "#1d7a52", "#5f6b76", "#b3261e"
ERROR_COLORS = {"train": BLUE, "held-out": ORANGE, "true": GREEN}
OUTCOME_MARKERS = {
    "completed": (GREEN, "circle"),
    "halted": (RED, "x"),
    "crashed": ("#000000", "cross"),
    "out_of_time": (GREY, "square"),
}
MAX_TRACE_POINTS = 800
MAX_PARITY_POINTS = 4000

Summary = Mapping[str, Any]


def plot_errors(summaries: Sequence[Summary], quantity: str) -> go.Figure:
    """RMSE by generation of `quantity` (energy or force), in meV/atom or meV/Å."""
    figure = _make_figure("generation", f"{quantity} RMSE (meV/{'atom' if quantity == 'energy' else 'Å'})")
    generations = [summary["generation"] for summary in summaries]
    walkers = dict.fromkeys(name for summary in summaries for name in summary["rmse"]["true"] or {})
    curves = {
        "train": [summary["rmse"]["train"] for summary in summaries],
        "held-out": [summary["rmse"]["held_out"] for summary in summaries],
        **{f"true, {name}": [(summary["rmse"]["true"] or {}).get(name) for summary in summaries] for name in walkers},
    }
    dashes = ["solid", "dash", "dot", "dashdot", "longdash"]
    for index, (name, errors) in enumerate(curves.items()):
        if any(errors):
            figure.add_scatter(
                x=generations,
                y=[_to_milli(error, quantity) for error in errors],
                name=name,
                mode="lines+markers",
                line={"color": ERROR_COLORS[name.partition(",")[0]], "dash": dashes[max(0, index - 2) % len(dashes)]},
                hovertemplate="%{y:.3g}",
            )
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(rangemode="tozero")
    return figure


def plot_counts(summaries: Sequence[Summary]) -> go.Figure:
    """Structures by generation and fate."""
    figure = _make_figure("generation", "structures")
    colors = {"candidates": "#a9b4be", "selected": "#6f9bc8", "labelled": BLUE, "failed": RED}
    for key, color in colors.items():
        figure.add_bar(
            x=[summary["generation"] for summary in summaries],
            y=[summary[key] for summary in summaries],
            name=key,
            marker_color=color,
        )
    figure.update_layout(barmode="group", hovermode="x unified")
    return figure


def plot_largest_gamma(summaries: Sequence[Summary], threshold: float) -> go.Figure:
    """Largest gamma of each walker by generation, by how its MD ended."""
    figure = _make_figure("generation", "largest γ in MD")
    figure.add_scatter(
        x=[summary["generation"] for summary in summaries],
        y=[summary["gamma_max"] for summary in summaries],
        name="largest",
        mode="lines",
        line={"color": GREY, "width": 1},
        hoverinfo="skip",
    )
    for outcome, (color, symbol) in OUTCOME_MARKERS.items():
        ended = [
            (summary["generation"], walker["gamma_max"], name)
            for summary in summaries
            for name, walker in summary["walkers"].items()
            if walker["outcome"] == outcome
        ]
        if ended:
            generations, gammas, names = zip(*ended, strict=True)
            figure.add_scatter(
                x=generations,
                y=gammas,
                text=names,
                name=outcome.replace("_", " "),
                mode="markers",
                marker={"color": color, "symbol": symbol, "size": 9},
                hovertemplate="%{text}: γ = %{y:.3g}",
            )
    _add_threshold(figure, threshold)
    _style_gamma_axes(figure, max((summary["gamma_max"] or 1 for summary in summaries), default=1))
    return figure


def plot_md(
    summaries: Sequence[Summary], traces: Mapping[int, Mapping[str, pd.DataFrame]], threshold: float
) -> go.Figure:
    """Gamma against MD time: one panel a walker, one line a generation, confirmations in the panel of their walker.

    Parameters
    ----------
    traces
        By generation and walker: columns `time` (ps) and `gamma`.
    """
    panels = list(dict.fromkeys(get_panel(name) for walkers in traces.values() for name in walkers))
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes="all",
        shared_yaxes="all",
        subplot_titles=panels,
        vertical_spacing=0.16 / len(panels),
    )
    _style(figure)
    colors = sample_colorscale("Viridis", np.linspace(0.85, 0, max(2, len(summaries))))
    for color, summary in zip(colors, summaries, strict=False):
        generation = summary["generation"]
        for index, (name, trace) in enumerate(traces[generation].items()):
            row = panels.index(get_panel(name)) + 1
            thinned = _thin_trace(trace)
            label = f"{name}, generation {generation}"
            figure.add_scatter(
                x=thinned["time"],
                y=thinned["gamma"],
                name=f"generation {generation}",
                legendgroup=str(generation),
                showlegend=index == 0,
                mode="lines",
                line={"color": color, "width": 1.4, "dash": "dot" if name != get_panel(name) else "solid"},
                hovertemplate=f"{label}<br>%{{x:.3g}} ps: γ = %{{y:.3g}}<extra></extra>",
                row=row,
                col=1,
            )
            outcome = summary["walkers"][name]["outcome"]
            if outcome != "completed":
                mark, symbol = OUTCOME_MARKERS[outcome]
                figure.add_scatter(
                    x=trace["time"].iloc[-1:],
                    y=trace["gamma"].iloc[-1:],
                    name=outcome,
                    legendgroup=str(generation),
                    showlegend=False,
                    mode="markers",
                    marker={"color": mark, "symbol": symbol, "size": 10},
                    hovertemplate=f"{label}: {outcome} at %{{x:.3g}} ps, γ = %{{y:.3g}}<extra></extra>",
                    row=row,
                    col=1,
                )
    _add_threshold(figure, threshold)
    largest = max((trace["gamma"].max() for walkers in traces.values() for trace in walkers.values()), default=1)
    _style_gamma_axes(figure, largest)
    figure.update_yaxes(title_text="largest γ")
    figure.update_xaxes(title_text="time (ps)", row=len(panels), col=1)
    figure.update_layout(height=110 + 210 * len(panels))
    return figure


def plot_energy_parity(predictions: Sequence[Atoms]) -> go.Figure:
    """Predicted against true energy per atom; structures whose energy has weight 0 left out."""
    counted = [atoms for atoms in predictions if get_energy_weight(atoms) > 0]
    return _plot_parity(
        np.array([atoms.get_potential_energy() / len(atoms) for atoms in counted]),
        np.array([atoms.info["predicted_energy"] / len(atoms) for atoms in counted]),
        np.array([bool(atoms.info["held_out"]) for atoms in counted], dtype=bool),
        "energy",
        "eV/atom",
    )


def plot_force_parity(predictions: Sequence[Atoms]) -> go.Figure:
    """Predicted against true force components of the atoms that count (`force_mask` 1)."""
    true, predicted, held_out = collect_forces(predictions)
    return _plot_parity(true, predicted, held_out, "force component", "eV/Å")


def _plot_parity(true: np.ndarray, predicted: np.ndarray, held_out: np.ndarray, quantity: str, unit: str) -> go.Figure:
    figure = _make_figure(f"{quantity} by the oracle ({unit})", f"{quantity} predicted ({unit})")
    for name, chosen in (("train", ~held_out), ("held-out", held_out)):
        if chosen.any():
            x, y = true[chosen], predicted[chosen]
            kept = thin_by_error(x, y, MAX_PARITY_POINTS)
            figure.add_scatter(
                x=x[kept].astype("float32"),
                y=y[kept].astype("float32"),
                name=f"{name}: RMSE {1000 * np.sqrt(np.mean((y - x) ** 2)):.3g} m{unit}",
                mode="markers",
                marker={"color": ERROR_COLORS[name], "size": 5, "opacity": 0.6},
                hovertemplate="%{x:.4g}, predicted %{y:.4g}",
            )
    if len(true):
        ends = [float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))]
        figure.add_scatter(
            x=ends, y=ends, mode="lines", line={"color": GREY, "width": 1}, showlegend=False, hoverinfo="skip"
        )
    return figure


def _to_milli(error: Mapping[str, float | None] | None, quantity: str) -> float | None:
    value = error[quantity] if error else None
    return None if value is None else 1000 * value


def _thin_trace(trace: pd.DataFrame) -> pd.DataFrame:
    """At most MAX_TRACE_POINTS rows: of each stretch of time the one with the largest gamma."""
    if len(trace) <= MAX_TRACE_POINTS:
        return trace
    stretch = np.arange(len(trace)) * MAX_TRACE_POINTS // len(trace)
    return trace.loc[trace.groupby(stretch)["gamma"].idxmax()]


def _make_figure(x_title: str, y_title: str) -> go.Figure:
    figure = go.Figure()
    _style(figure)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title)
    if x_title == "generation":
        figure.update_xaxes(dtick=1)
    return figure


def _style(figure: go.Figure) -> None:
    figure.update_layout(
        template="simple_white",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1c2530"},
        margin={"l": 64, "r": 16, "t": 32, "b": 52},
        height=360,
        # Below the x axis's title: above, it would run under the buttons on a narrow page.
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "yref": "container"},
    )
    figure.update_xaxes(showgrid=True, gridcolor="#e4e8ec")
    figure.update_yaxes(showgrid=True, gridcolor="#e4e8ec")


def _style_gamma_axes(figure: go.Figure, largest: float) -> None:
    """Log axes with whole numbers at their ticks: plotly's own ones read 2 for 2, 20 and 200."""
    steps = (1, 2, 5) if largest < 200 else (1,)
    figure.update_yaxes(type="log", tickvals=[step * 10**decade for decade in range(-1, 9) for step in steps])


def _add_threshold(figure: go.Figure, threshold: float) -> None:
    # The template would draw it at opacity 0.3.
    figure.add_hline(y=threshold, line={"color": RED, "width": 1, "dash": "dash"}, opacity=1)
