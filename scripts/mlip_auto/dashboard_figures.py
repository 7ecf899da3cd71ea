"""The dashboard's figures of generations and MD, each a function of what the generations' files say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mlip_auto.dashboard_style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    OUTCOME_MARKERS,
    add_threshold,
    color_generations,
    make_figure,
    style,
    style_gamma_axis,
)
from mlip_auto.report_data import find_clean_time, get_panel

ERROR_COLORS = {"train": BLUE, "held-out": ORANGE, "true": GREEN}
COUNT_COLORS = {"candidates": GREY, "selected": GREEN, "labelled": BLUE, "failed": ORANGE}
MAX_TRACE_POINTS = 300

Summary = Mapping[str, Any]
Traces = Mapping[int, Mapping[str, pd.DataFrame]]
"""By generation and walker: the columns of `report_data.read_traces`."""


def plot_errors(summaries: Sequence[Summary], quantity: str) -> go.Figure:
    """RMSE by generation of `quantity` (energy or force), in meV/atom or meV/Å."""
    figure = _make_figure(summaries, f"{quantity} RMSE (meV/{'atom' if quantity == 'energy' else 'Å'})")
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
                x=[summary["generation"] for summary in summaries],
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
    figure = _make_figure(summaries, "structures")
    for key, color in COUNT_COLORS.items():
        figure.add_bar(
            x=[summary["generation"] for summary in summaries],
            y=[summary[key] for summary in summaries],
            name=key,
            marker={"color": color, "line": {"width": 0}},  # the template's white outline glares on the dark page
        )
    figure.update_layout(barmode="group", hovermode="x unified")
    return figure


def plot_largest_gamma(summaries: Sequence[Summary], threshold: float) -> go.Figure:
    """Largest gamma of each walker by generation, by how its MD ended."""
    figure = _make_figure(summaries, "largest γ in MD")
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
    add_threshold(figure, threshold)
    style_gamma_axis(figure, max(summary["gamma_max"] or 1 for summary in summaries), threshold)
    return figure


def plot_walker(panel: str, summaries: Sequence[Summary], traces: Traces, threshold: float) -> go.Figure:
    """MD of one walker: gamma, temperature and pressure against time; a line a generation, confirmations dotted."""
    figure = make_subplots(rows=3, cols=1, shared_xaxes="all", row_heights=[0.5, 0.25, 0.25], vertical_spacing=0.04)
    style(figure, height=520)
    colors = color_generations(summary["generation"] for summary in summaries)
    largest = 1.0
    for summary in summaries:
        generation = summary["generation"]
        for name, trace in traces[generation].items():
            if get_panel(name) != panel:
                continue
            label = f"{name}, generation {generation}"
            thinned = _thin_trace(trace).astype("float32")
            largest = max(largest, trace["gamma"].max())
            common = {"showlegend": False, "meta": {"generation": generation}, "name": label, "col": 1}
            line = {"color": colors[generation], "width": 1.5, "dash": "solid" if name == panel else "dot"}
            for row, (column, unit) in enumerate({"gamma": "", "temperature": " K", "pressure": " bar"}.items(), 1):
                figure.add_scatter(
                    x=thinned["time"].to_numpy(),
                    y=thinned[column].to_numpy(),
                    mode="lines" if len(trace) > 1 else "markers",  # what crashed at once has one point
                    line=line,
                    marker_color=colors[generation],
                    hovertemplate=f"{label}<br>%{{x:.3g}} ps: {column} %{{y:.4g}}{unit}<extra></extra>",
                    row=row,
                    **common,
                )
            outcome = summary["walkers"][name]["outcome"]
            if outcome != "completed":
                color, symbol = OUTCOME_MARKERS[outcome]
                figure.add_scatter(
                    x=trace["time"].iloc[-1:],
                    y=trace["gamma"].iloc[-1:],
                    mode="markers",
                    marker={"color": color, "symbol": symbol, "size": 10},
                    hovertemplate=f"{label}: {outcome} at %{{x:.3g}} ps, γ = %{{y:.3g}}<extra></extra>",
                    row=1,
                    **common,
                )
    add_threshold(figure, threshold, row=1, col=1)
    style_gamma_axis(figure, largest, threshold, row=1, col=1)
    for row, title in enumerate(("largest γ", "T (K)", "P (bar)"), 1):
        figure.update_yaxes(title_text=title, row=row, col=1)
    figure.update_xaxes(title_text="time (ps)", row=3, col=1)
    return figure


def tabulate_coverage(summaries: Sequence[Summary], traces: Traces, threshold: float, timestep: float) -> pd.DataFrame:
    """A row for each generation and walker: `clean` and `asked` (ps), summed over the run and its confirmations.

    Parameters
    ----------
    timestep
        Of MD, fs.
    """
    rows = [
        {
            "generation": summary["generation"],
            "walker": get_panel(name),
            "clean": find_clean_time(trace, threshold),
            "asked": summary["walkers"][name]["steps"] * timestep / 1000,
        }
        for summary in summaries
        for name, trace in traces[summary["generation"]].items()
    ]
    table = pd.DataFrame(rows, columns=["generation", "walker", "clean", "asked"])
    return table.groupby(["generation", "walker"], sort=False, as_index=False).sum()


def plot_coverage(coverage: pd.DataFrame) -> go.Figure:
    """Share of the asked MD time that ran without gamma above the threshold, by walker and generation."""
    share = 100 * coverage["clean"] / coverage["asked"]
    table = coverage.assign(share=share.round(1), text=coverage["clean"].map("{:.3g}".format))
    cells = table.pivot(index="walker", columns="generation").reindex(coverage["walker"].unique())
    grid, text = cells["share"], cells["text"]
    figure = make_figure("generation", "", height=140 + 36 * len(grid))
    figure.add_heatmap(
        x=grid.columns.to_list(),
        y=grid.index.to_list(),
        z=grid.to_numpy(),
        text=text.fillna("").to_numpy(),
        texttemplate="%{text}" if len(grid.columns) <= 8 else None,
        zmin=0,
        zmax=100,
        xgap=2,
        ygap=2,
        colorscale=[(0, "#f3d3b8"), (0.5, "#cfd8df"), (1, "#9cc3e4")],
        textfont={"color": "#1c2530"},
        colorbar={"title": {"text": "% of asked", "side": "right"}, "thickness": 12},
        hovertemplate="%{y}, generation %{x}: %{text} ps clean, %{z:.3g} % of the time asked<extra></extra>",
    )
    figure.update_xaxes(showgrid=False, dtick=1 + len(grid.columns) // 10)
    figure.update_yaxes(showgrid=False, automargin=True, autorange="reversed")
    return figure


def _make_figure(summaries: Sequence[Summary], y_title: str) -> go.Figure:
    """Axes of a figure by generation, with whole numbers at its ticks."""
    figure = make_figure("generation", y_title)
    numbers = [summary["generation"] for summary in summaries]
    figure.update_xaxes(dtick=1 + len(summaries) // 10, range=[numbers[0] - 0.5, numbers[-1] + 0.5])
    return figure


def _to_milli(error: Mapping[str, float | None] | None, quantity: str) -> float | None:
    value = error[quantity] if error else None
    return None if value is None else 1000 * value


def _thin_trace(trace: pd.DataFrame) -> pd.DataFrame:
    """At most MAX_TRACE_POINTS rows: of each stretch of time the one with the largest gamma."""
    if len(trace) <= MAX_TRACE_POINTS:
        return trace
    stretch = np.arange(len(trace)) * MAX_TRACE_POINTS // len(trace)
    return trace.loc[trace["gamma"].fillna(np.inf).groupby(stretch).idxmax()]
