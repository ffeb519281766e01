"""A report's figures, without a display: PNG to look at, SVG to print."""

import io
import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot it draws by Agg and needs no display
from matplotlib.ticker import EngFormatter

from agent.storage import files
from envs.aggregates import Estimate
from envs.scores import CRAFTER_ACHIEVEMENTS

# Told apart by the colour-blind too (Okabe and Ito).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
Intervals = Mapping[str, Estimate | float]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write <folder>/<name>.png and .svg; the same figure is the same files."""
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        for kind, options in (("png", {}), ("svg", {"metadata": {"Date": None}})):
            picture = io.BytesIO()
            figure.savefig(picture, format=kind, **options)
            files.write(folder / f"{name}.{kind}", picture.getvalue())
            figure.set_layout_engine("none")  # it is laid out, which is what takes the time


def clean(axes: Axes) -> None:
    """Less ink."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def file_name(text: str) -> str:
    """Text as a part of a file's name."""
    return re.sub(r"[^\w-]+", "_", text).strip("_") or "_"


def plain(text: str) -> str:
    """Text in which a dollar starts no formula, nor an underscore hides a label of a legend."""
    return text.replace("$", r"\$").lstrip("_") or "_"


def mean_and_range(curves: pd.DataFrame) -> pd.DataFrame:
    """Average several seeds' curves at each epoch, over the seeds that reach it.

    Between a seed's points it is a straight line; before the first and behind the last there is
    none.

    Args:
        curves: A row for each point: run, epoch, at (steps or minutes), score.

    Returns:
        A row for each epoch: mean at; mean, least and most of the scores.
    """
    wide = curves.pivot_table(index="epoch", columns="run", values=["at", "score"], aggfunc="last")
    wide = wide.interpolate(method="index", limit_area="inside")
    at, score = wide["at"].mean(axis=1), wide["score"].agg(["mean", "min", "max"], axis=1)
    return score.set_axis(["mean", "least", "most"], axis=1).assign(at=at)


def draw_curves(
    curves: pd.DataFrame, levels: Mapping[str, Mapping[str, float]], against: str
) -> Figure:
    """Draw a panel for each name, in it each method's mean and range over seeds.

    Args:
        curves: A row for each point: name, method, run, epoch, at, score.
        levels: What it is -> name -> return at which a dashed line is drawn.
        against: What `at` is.
    """
    panels = curves.groupby("name", sort=False)
    methods = list(dict.fromkeys(curves.method))
    width = min(len(panels), 6)
    height = -(-len(panels) // width)
    size = (2.4 * width + 0.4, 2.1 * height + 0.5) if len(panels) > 2 else (5 * width, 3.4)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    legend = {}
    for place, (name, panel) in enumerate(panels, start=1):
        axes = figure.add_subplot(height, width, place)
        for method, runs in panel.groupby("method", sort=False):
            color = COLORS[methods.index(method) % len(COLORS)]
            line = mean_and_range(runs)
            axes.fill_between(line["at"], line.least, line.most, color=color, alpha=0.2, lw=0)
            marker = "o" if len(line) < 15 else ""
            (legend[plain(method)],) = axes.plot(
                line["at"], line["mean"], color=color, marker=marker
            )
        for style, (label, level) in zip(("--", ":"), levels.items(), strict=False):
            if name in level:
                legend[label] = axes.axhline(level[name], color="black", lw=1, linestyle=style)
        runs = panel.run.nunique()
        axes.set_title(f"{plain(name)} ({runs} run{'s' * (runs > 1)})", fontsize=9)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.locator_params(axis="x", nbins=4)
        clean(axes)
    figure.supxlabel(against, fontsize=9)
    figure.supylabel("return in evaluation", fontsize=9)
    lines, labels = list(legend.values()), list(legend)
    figure.legend(lines, labels, loc="outside upper right", ncols=3, fontsize=8)
    return figure


def draw_intervals(panels: Mapping[str, Intervals]) -> Figure:
    """Draw a panel for each statistic, in it a row for each of whom it is known."""
    rows = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    size = (2.1 * len(panels) + 3, 0.3 * len(rows) + 1.1)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    for axes, (title, panel) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for label, number in panel.items():
            row = rows.index(label)
            value, low, high = number if isinstance(number, Estimate) else [number] * 3
            error = [[value - low], [high - value]]
            axes.errorbar(value, row, xerr=error, fmt="D", ms=5, color=COLORS[row % len(COLORS)])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), map(plain, rows) if axes is figure.axes[0] else [])
        axes.set_title(title, fontsize=10)
        clean(axes)
    return figure


def draw_success_rates(rates: Mapping[str, np.ndarray]) -> Figure:
    """Draw Crafter's success rates, the mean over seeds.

    The scale is logarithmic, as is customary: rare achievements are what agents differ in.

    Args:
        rates: Whose -> percent [seeds, 22].
    """
    names = [name.replace("_", " ") for name in CRAFTER_ACHIEVEMENTS]
    figure = Figure(figsize=(9, 4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(rates)
    for i, (label, percent) in enumerate(rates.items()):
        x = np.arange(len(names)) + (i - (len(rates) - 1) / 2) * width
        axes.bar(x, percent.mean(axis=0), width, color=COLORS[i % len(COLORS)], label=plain(label))
    axes.set(yscale="log", ylim=(0.1, 130), ylabel="success rate in percent")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    clean(axes)
    figure.legend(loc="outside upper right", ncols=len(rates), fontsize=8)
    return figure
