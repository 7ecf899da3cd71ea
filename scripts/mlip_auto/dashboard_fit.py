"""The dashboard's figures of the fit: parity, and whether gamma is a good guide to the error of a force."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.stats import spearmanr

from mlip_auto.dashboard_style import BLUE, GREEN, GREY, ORANGE, PURPLE, color_generations, list_log_ticks, make_figure
from mlip_auto.report_data import thin_by_error

MAX_PARITY_POINTS = 4000
MAX_GUIDE_ATOMS = 4000
MIN_LABELS = 8  # fewer say nothing about a rank correlation
GUIDE_WORDS = {0.7: "a good guide", 0.4: "a fair guide", 0.2: "a weak guide", -1.0: "no guide"}
GAMMA_BINS = (0.0, 1.0, 2.0, 5.0, 10.0, 100.0, np.inf)
PARITY_MARKERS = {  # by config_type and whether it is held out
    ("initial", False): (GREEN, "circle"),
    ("initial", True): (ORANGE, "diamond-open"),
    ("active_learning", False): (BLUE, "circle"),
    ("active_learning", True): (PURPLE, "diamond-open"),
}


def plot_parity(table: pd.DataFrame, quantity: str, unit: str) -> go.Figure:
    """Predicted against true values: colour by `config_type`, open diamonds held out, masked atoms apart.

    Parameters
    ----------
    table
        As `report_data.tabulate_forces` makes it.
    """
    figure = make_figure(f"{quantity} by the oracle ({unit})", f"{quantity} predicted ({unit})", height=420)
    counted = table[table["counts"].astype(bool)]
    if len(counted):
        values = counted[["true", "predicted"]]
        ends = [float(values.min(axis=None)), float(values.max(axis=None))]
        figure.add_scatter(
            x=ends, y=ends, mode="lines", line={"color": GREY, "width": 1}, showlegend=False, hoverinfo="skip"
        )
    masked = table[~table["counts"].astype(bool)]
    if len(masked):
        marker = {"color": GREY, "size": 4, "opacity": 0.5}
        _add_parity(figure, masked, "masked atoms", unit, marker)
        figure.data[-1].visible = "legendonly"
    for (kind, held_out), rows in counted.groupby(["config_type", "held_out"]):
        color, symbol = PARITY_MARKERS[kind, held_out]
        name = f"{kind.replace('_', ' ')}, {'held-out' if held_out else 'train'}"
        _add_parity(figure, rows, name, unit, {"color": color, "symbol": symbol, "size": 5, "opacity": 0.7})
    return figure


@dataclass(frozen=True)
class Guide:
    """What gamma says about the errors of new labels.

    Attributes
    ----------
    sentence
        The rank correlation in words.
    bins
        A row for each interval of gamma with atoms in it: `interval`, `atoms`, `rms` and `largest` error (eV/Å).
    """

    sentence: str
    bins: list[dict[str, object]]


def judge_gamma(forecasts: pd.DataFrame) -> Guide:
    """Rank correlation of gamma with the force error that the potential made before it knew the labels.

    Parameters
    ----------
    forecasts
        As `report_data.tabulate_forecasts` makes it, of any number of generations.
    """
    labels = summarise_labels(forecasts)
    bins = []
    for low, high in pairwise(GAMMA_BINS):
        errors = forecasts.loc[(forecasts["gamma"] >= low) & (forecasts["gamma"] < high), "error"]
        if len(errors):
            interval = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
            rms = float(np.sqrt(np.mean(errors**2)))
            bins.append({"interval": interval, "atoms": len(errors), "rms": rms, "largest": float(errors.max())})
    if labels["gamma"].nunique() < MIN_LABELS:
        count = f"{len(labels) or 'no'} new label{'s' * (len(labels) != 1)}"
        return Guide(f"Too few to say: {count} since generation 0.", bins)
    by_label = _correlate(labels["gamma"], labels["error"])
    by_atom = _correlate(forecasts["gamma"], forecasts["error"])
    words = next(text for limit, text in GUIDE_WORDS.items() if by_atom >= limit)
    return Guide(
        f"γ is {words} to the error here: over the {len(forecasts)} unmasked atoms of {len(labels)} new labels the "
        f"rank correlation of γ with the error of the atom's force is {by_atom:.2f}; over the labels, the largest γ "
        f"of each with its RMS force error, {by_label:.2f} (1: the order is the same, 0: no relation).",
        bins,
    )


def summarise_labels(forecasts: pd.DataFrame) -> pd.DataFrame:
    """A row for each new label: largest `gamma`, RMS `error` of its forces (eV/Å), `walker`, `generation`, `label`."""
    grouped = forecasts.groupby(["generation", "walker", "label"], sort=False)
    table = pd.DataFrame(
        {"gamma": grouped["gamma"].max(), "error": grouped["error"].agg(lambda error: np.sqrt(np.mean(error**2)))}
    )
    return table.reset_index()


def plot_guide(forecasts: pd.DataFrame, threshold: float) -> go.Figure:
    """Force error of labels against gamma, both by the potential before it knew them: labels large, atoms small."""
    figure = make_figure("γ by the potential before", "force error (meV/Å)", height=420)
    atoms = forecasts
    if len(atoms) > MAX_GUIDE_ATOMS:
        atoms = atoms.iloc[thin_by_error(np.zeros(len(atoms)), atoms["error"].to_numpy(), MAX_GUIDE_ATOMS)]
    colors = color_generations(sorted(forecasts["generation"].unique()))
    sizes = ((atoms, "an atom", 3, 0.35), (summarise_labels(forecasts), "a label: largest γ, RMS error", 10, 1.0))
    for table, name, size, opacity in sizes:
        for index, ((generation, walker), rows) in enumerate(table.groupby(["generation", "walker"])):
            figure.add_scatter(
                x=rows["gamma"].to_numpy(dtype="float32"),
                y=1000 * rows["error"].to_numpy(dtype="float32"),
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=index == 0,
                meta={"generation": int(generation), "walker": walker},
                marker={"color": colors[generation], "size": size, "opacity": opacity, "line": {"width": 0}},
                hovertemplate=f"generation {generation}, {walker}<br>γ %{{x:.3g}}, %{{y:.3g}} meV/Å<extra></extra>",
            )
    figure.add_vline(x=threshold, line={"color": ORANGE, "width": 1.5, "dash": "dash"}, opacity=1)
    figure.update_xaxes(type="log", tickvals=list_log_ticks(forecasts["gamma"].max()))
    figure.update_yaxes(type="log", tickvals=list_log_ticks(1000 * forecasts["error"].max()))
    return figure


def _add_parity(figure: go.Figure, rows: pd.DataFrame, name: str, unit: str, marker: dict[str, object]) -> None:
    x, y = rows["true"].to_numpy(), rows["predicted"].to_numpy()
    kept = thin_by_error(x, y, MAX_PARITY_POINTS)
    figure.add_scatter(
        x=x[kept].astype("float32"),
        y=y[kept].astype("float32"),
        name=f"{name}: RMSE {1000 * np.sqrt(np.mean((y - x) ** 2)):.3g} m{unit}",
        mode="markers",
        marker=marker,
        hovertemplate="%{x:.4g}, predicted %{y:.4g}",
    )


def _correlate(first: pd.Series, second: pd.Series) -> float:
    return float(spearmanr(first, second).statistic)
