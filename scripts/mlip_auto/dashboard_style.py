"""Colours and axes of the dashboard's figures.

The colours can be told apart by colour-blind readers and have a contrast above 3 on the light and on the dark page.
The page's script gives text, grids and grounds the colours of the theme.
"""

from collections.abc import Iterable

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2f7fc1", "#d55e00", "#159a6f", "#b25fa5", "#7c8794"
GENERATION_SCALE = [(0.0, BLUE), (0.5, "#8c6bb1"), (1.0, ORANGE)]
GAMMA_SCALE = [(0.0, BLUE), (0.45, "#b09a86"), (1.0, ORANGE)]
OUTCOME_MARKERS = {
    "completed": (BLUE, "circle"),
    "halted": (ORANGE, "x"),
    "crashed": (PURPLE, "cross"),
    "out_of_time": (GREY, "square"),
}


def color_generations(generations: Iterable[int]) -> dict[int, str]:
    """A colour by generation, from blue (the first) to orange (the last)."""
    numbers = list(generations)
    last = max(len(numbers) - 1, 1)
    colors = sample_colorscale([list(stop) for stop in GENERATION_SCALE], [i / last for i in range(len(numbers))])
    return dict(zip(numbers, colors, strict=True))


def make_figure(x_title: str, y_title: str, height: int = 360) -> go.Figure:
    figure = go.Figure()
    style(figure, height)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title)
    return figure


def style(figure: go.Figure, height: int) -> None:
    figure.update_layout(
        template="simple_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 64, "r": 16, "t": 32, "b": 52},
        height=height,
        # Below the x axis's title: above, it would run under the buttons on a narrow page.
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "yref": "container"},
    )
    figure.update_xaxes(showgrid=True, title_standoff=8)
    figure.update_yaxes(showgrid=True)


def style_gamma_axis(figure: go.Figure, largest: float, threshold: float, **where: int) -> None:
    """A log axis with whole numbers at its ticks: plotly's own ones read 2 for 2, 20 and 200."""
    figure.update_yaxes(type="log", tickvals=list_log_ticks(max(largest, threshold)), **where)


def list_log_ticks(largest: float) -> list[float]:
    steps = (1, 2, 5) if largest < 200 else (1,)
    return [step * 10.0**decade for decade in range(-2, 9) for step in steps]


def add_threshold(figure: go.Figure, threshold: float, **where: int) -> None:
    # The template would draw it at opacity 0.3.
    figure.add_hline(y=threshold, line={"color": ORANGE, "width": 1.5, "dash": "dash"}, opacity=1, **where)
