"""One generation's figure for the Snakemake report: how MD ran and how good the fit is.

A static SVG: with plotly inlined each such page would add 4.8 MB to the report.
"""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mlip_auto.config import CampaignConfig
from mlip_auto.paths import GenerationPaths
from mlip_auto.report_data import get_panel, read_traces, tabulate_forces
from mlip_auto.structures import read_json, read_structures, write_atomically

COLORS = ("#1f5a99", "#c2541b", "#1d7a52", "#7a3e8f", "#8a6100", "#2b8a9e", "#a3325c", "#56626e")
RED, GREY = "#b3261e", "#5f6b76"


def write_generation_figure(files: GenerationPaths, config: CampaignConfig) -> None:
    """Write the figure: gamma against time of each walker, and predicted against true forces."""
    summary = read_json(files.summary)
    walkers = summary["walkers"]
    traces = read_traces(files, walkers)
    forces = tabulate_forces(read_structures(files.predictions)).query("counts")
    true, predicted, held_out = (forces[column].to_numpy() for column in ("true", "predicted", "held_out"))
    # Text stays text: smaller, and searchable in the report. The salt makes equal figures equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mlip-auto"}):
        figure = Figure(figsize=(11, 5), layout="constrained")
        md, parity = figure.subplots(1, 2, width_ratios=(3, 2))
        figure.suptitle(f"Generation {summary['generation']}")
        _draw_md(md, walkers, traces, config.exploration.uncertainty_threshold)
        _draw_parity(parity, true, predicted, held_out)
        with write_atomically(files.figure) as aside:
            figure.savefig(aside, metadata={"Date": None}, dpi=150)


def _draw_md(axes: Axes, walkers: dict[str, Any], traces: dict[str, Any], threshold: float) -> None:
    panels = list(dict.fromkeys(get_panel(name) for name in walkers))
    for name, trace in traces.items():
        panel = get_panel(name)
        axes.plot(
            trace["time"],
            trace["gamma"],
            color=COLORS[panels.index(panel) % len(COLORS)],
            linestyle="-" if name == panel else ":",
            linewidth=1.2,
            label=f"{name}: {walkers[name]['outcome'].replace('_', ' ')}",
        )
        outcome = walkers[name]["outcome"]
        if outcome != "completed":
            color, marker = (RED, "x") if outcome == "halted" else ("black", "P")
            axes.plot(trace["time"].iloc[-1], trace["gamma"].iloc[-1], color=color, marker=marker, markersize=9)
    axes.axhline(threshold, color=RED, linestyle="--", linewidth=1, label=f"threshold, γ = {threshold:g}")
    axes.set(yscale="log", xlabel="time (ps)", ylabel="largest γ", title="MD")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    _add_legend(axes, columns=3)


def _draw_parity(axes: Axes, true: np.ndarray, predicted: np.ndarray, held_out: np.ndarray) -> None:
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    axes.plot(ends, ends, color=GREY, linewidth=1)
    for name, chosen, color in (("train", ~held_out, COLORS[0]), ("held-out", held_out, COLORS[1])):
        if chosen.any():
            rmse = 1000 * np.sqrt(np.mean((predicted - true)[chosen] ** 2))
            axes.scatter(
                true[chosen],
                predicted[chosen],
                s=6,
                alpha=0.5,
                linewidths=0,
                color=color,
                rasterized=True,  # tens of thousands of points as vectors would be megabytes
                label=f"{name}: RMSE {rmse:.3g} meV/Å",
            )
    axes.set(xlabel="force component by the oracle (eV/Å)", ylabel="predicted (eV/Å)", title="Fit", aspect="equal")
    _add_legend(axes, columns=1)


def _add_legend(axes: Axes, columns: int) -> None:
    """Below the axes, where it hides no data."""
    axes.grid(color="#e4e8ec")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.13), ncols=columns, frameon=False)
