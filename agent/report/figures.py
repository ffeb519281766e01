"""A report's figures, without a display: PNG to look at, SVG to print."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot it draws by Agg and needs no display
from matplotlib.ticker import EngFormatter

from envs.scores import CRAFTER_ACHIEVEMENTS

# Told apart by the colour-blind too (Okabe and Ito).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def save(figure: Figure, path: Path) -> None:
    """Write <path>.png and <path>.svg."""
    figure.savefig(f"{path}.png")
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(f"{path}.svg")


def clean(axes: Axes) -> None:
    """Less ink."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def mean_and_range(curves: pd.DataFrame) -> pd.DataFrame:
    """Average several seeds' curves at each epoch, over the seeds that reach it.

    Between a seed's points it is a straight line; before the first and behind the last there is
    none.

    Args:
        curves: A row for each point: run, epoch, at (steps or minutes), score.

    Returns:
        A row for each epoch: mean at; mean, min and max of the scores.
    """
    wide = curves.pivot_table(index="epoch", columns="run", values=["at", "score"], aggfunc="last")
    wide = wide.interpolate(method="index", limit_area="inside")
    return wide["score"].agg(["mean", "min", "max"], axis=1).assign(at=wide["at"].mean(axis=1))


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
    for number, (name, panel) in enumerate(panels, start=1):
        axes = figure.add_subplot(height, width, number)
        for method, runs in panel.groupby("method", sort=False):
            color = COLORS[methods.index(method) % len(COLORS)]
            line = mean_and_range(runs)
            axes.fill_between(line["at"], line["min"], line["max"], color=color, alpha=0.2, lw=0)
            marker = "o" if len(line) < 15 else ""
            (legend[method],) = axes.plot(line["at"], line["mean"], color=color, marker=marker)
        for style, (label, level) in zip(("--", ":"), levels.items(), strict=False):
            if name in level:
                legend[label] = axes.axhline(level[name], color="black", lw=1, linestyle=style)
        axes.set_title(f"{name} ({panel.run.nunique()} runs)", fontsize=9)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.locator_params(axis="x", nbins=4)
        clean(axes)
    figure.supxlabel(against, fontsize=9)
    figure.supylabel("return in evaluation", fontsize=9)
    lines, labels = list(legend.values()), list(legend)
    figure.legend(lines, labels, loc="outside upper right", ncols=3, fontsize=8)
    return figure


def draw_success_rates(rates: Mapping[str, np.ndarray]) -> Figure:
    """Draw Crafter's success rates, the mean over seeds.

    The scale is logarithmic, as is customary: rare achievements are what agents differ in.

    Args:
        rates: Whose -> percent [seeds, 22].
    """
    names = [name.replace("_", " ") for name in CRAFTER_ACHIEVEMENTS]
    table = pd.DataFrame({whose: of.mean(axis=0) for whose, of in rates.items()}, index=names)
    figure = Figure(figsize=(9, 4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    table.plot.bar(ax=axes, color=COLORS, width=0.8, log=True, ylim=(0.1, 130))
    axes.set_ylabel("success rate in percent")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.legend(fontsize=8)
    clean(axes)
    return figure
