"""What the labels cost and why some failed: the dashboard's DFT section."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from mlip_auto.dashboard_style import BLUE, GREEN, GREY, ORANGE, make_figure
from mlip_auto.verdict import get_failure_class

STATUS_MARKERS = {
    "completed": (BLUE, "circle"),
    "from the store": (GREEN, "circle-open"),
    "failed": (ORANGE, "x"),
    "pending": (GREY, "square-open"),
}


def plot_label_times(labels: pd.DataFrame) -> go.Figure:
    """Seconds of each label against its number of atoms, by what became of it.

    Parameters
    ----------
    labels
        As `report_data.tabulate_labels` makes it.
    """
    figure = make_figure("atoms of the structure", "seconds a label")
    status = labels["status"].mask(
        labels["from_store"].astype(bool) & (labels["status"] == "completed"), "from the store"
    )
    for name, (color, symbol) in STATUS_MARKERS.items():
        for index, (generation, rows) in enumerate(labels[status == name].groupby("generation")):
            figure.add_scatter(
                x=rows["n_atoms"].to_list(),
                y=rows["seconds"].to_list(),
                text=rows["structure_id"].str[:12].to_list(),
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=index == 0,
                meta={"generation": int(generation)},
                marker={"color": color, "symbol": symbol, "size": 8},
                hovertemplate=f"generation {generation}, %{{text}}<br>%{{x}} atoms: %{{y:.3g}} s<extra>{name}</extra>",
            )
    figure.update_yaxes(rangemode="tozero")
    return figure


def count_rungs(labels: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each generation and rung of the ladder: `tries`, `completed` ones, `seconds` of all of them."""
    tries = pd.DataFrame(
        [
            {"generation": generation, **rung}
            for generation, rungs in zip(labels["generation"], labels["rungs"], strict=True)
            for rung in rungs
        ],
        columns=["generation", "rung", "outcome", "seconds"],
    )
    rows = []
    for (generation, rung), group in tries.groupby(["generation", "rung"], sort=False):
        rows.append(
            {
                "generation": int(generation),
                "rung": rung.replace("_", " "),
                "tries": len(group),
                "completed": int((group["outcome"] == "completed").sum()),
                "seconds": float(group["seconds"].sum()),
            }
        )
    return rows


def list_failures(labels: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each generation and class of failure: `labels`, and the `message` of one of them."""
    failed = labels[labels["status"] == "failed"]
    failed = failed.assign(kind=failed["reason"].map(get_failure_class))
    return [
        {
            "generation": int(generation),
            "kind": kind,
            "labels": len(group),
            "message": group["reason"].iloc[0],
            "structure_id": group["structure_id"].iloc[0],
        }
        for (generation, kind), group in failed.groupby(["generation", "kind"], sort=False)
    ]
