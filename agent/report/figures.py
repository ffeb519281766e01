"""A report's figures, without a display: PNG to look at, SVG to print."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent import files
from envs.aggregates import Estimate
from envs.scores import CRAFTER_ACHIEVEMENTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float, float]]  # epoch, environment steps or minutes, return

# Told apart by the colour-blind too (Okabe and Ito): ours first, then what stands beside it.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
GRAY, LIGHT_GRAY = "#767676", "#a8a8a8"


def new_figure(width: float, height: float) -> Figure:
    """Inches."""
    from matplotlib.figure import Figure  # slow to import; without pyplot it draws by Agg and needs no display

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def save(figure: Figure, folder: Path, name: str) -> None:
    """<folder>/<name>.png and .svg; the same figure is the same files."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        for kind, options in (("png", {}), ("svg", {"metadata": {"Date": None}})):
            picture = io.BytesIO()
            figure.savefig(picture, format=kind, **options)
            files.write(folder / f"{name}.{kind}", picture.getvalue())


def clean(axes: Axes) -> None:
    """Less ink."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def mean_and_range(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Several seeds' curves -> (mean steps or minutes [n], [mean, least, most] return [3, n]), at each epoch over the seeds that
    reach it.

    Between a seed's points it is a straight line; before its first and behind its last there is none.
    """
    epochs = np.unique([epoch for curve in curves for epoch, _, _ in curve])
    lines = []
    for curve in curves:
        own_epochs, *columns = np.array(sorted(curve)).T
        lines.append([np.interp(epochs, own_epochs, column, left=np.nan, right=np.nan) for column in columns])
    places, returns = np.moveaxis(np.array(lines), 1, 0)
    return np.nanmean(places, axis=0), np.stack([of(returns, axis=0) for of in (np.nanmean, np.nanmin, np.nanmax)])


def draw_curves(curves: Mapping[str, Sequence[Curve]], levels: Mapping[str, Mapping[str, float]], against: str) -> Figure:
    """A panel for each name: the seeds' mean and range, and lines at the `levels` that there are for it.

    curves:  name -> one a seed, each with one point or more
    levels:  what it is -> name -> return
    against: what they are drawn against
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    drawn = [(color, *level) for color, level in zip(COLORS[1:], levels.items(), strict=False) if level[1].keys() & curves.keys()]
    width = min(len(curves), 6)
    height = -(-len(curves) // width)
    figure = new_figure(2.4 * width + 0.4, 2.1 * height + 0.5) if len(curves) > 2 else new_figure(5 * width, 3.4)
    for place, (name, seeds) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(height, width, place)
        steps, (mean, least, most) = mean_and_range(seeds)
        axes.fill_between(steps, least, most, color=COLORS[0], alpha=0.2, linewidth=0)
        axes.plot(steps, mean, color=COLORS[0], linewidth=1.4, marker="o" if len(steps) < 15 else "", markersize=2.5)
        for color, _, level in drawn:
            if name in level:
                axes.axhline(level[name], color=color, linewidth=1.0, linestyle="--")
        escaped = name.replace("$", r"\$")  # else it starts a formula
        axes.set_title(f"{escaped} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})", fontsize=9)
        if steps[-1] >= 1000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=4)
        clean(axes)
    figure.supxlabel(against, fontsize=9)
    figure.supylabel("return in evaluation", fontsize=9)
    if drawn:
        lines = [Line2D([], [], color=color, linestyle="--") for color, _, _ in drawn]
        figure.legend(lines, [label for _, label, _ in drawn], loc="outside upper right", ncols=len(drawn), fontsize=8)
    return figure


def draw_profile(profiles: Mapping[str, Estimate], thresholds: np.ndarray) -> Figure:
    """Share of runs above each threshold, with its 95 % band."""
    figure = new_figure(6.4, 4)
    axes = figure.add_subplot()
    for color, (label, profile) in zip(COLORS, profiles.items(), strict=False):
        axes.fill_between(thresholds, profile.low, profile.high, color=color, alpha=0.2, linewidth=0, step="post")
        axes.step(thresholds, profile.value, color=color, linewidth=1.6, label=label, where="post")
    axes.axvline(1, color=GRAY, linewidth=0.8, linestyle=":")
    # Most runs lie below a human, few far above: even up to 1, then each doubling alike.
    axes.set_xscale("symlog", linthresh=1, base=2)
    ticks = [tick for tick in (0, 0.25, 0.5, 0.75, 1, 2, 4, 8, 16) if tick <= thresholds[-1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set(
        xlim=(thresholds[0], thresholds[-1]), ylim=(0, 1.02), xlabel="human-normalized score τ (1: human)",
        ylabel="share of runs above τ",
    )  # fmt: skip
    clean(axes)
    axes.legend(frameon=False)
    return figure


def draw_aggregates(aggregates: Mapping[str, Mapping[str, Estimate | float]]) -> Figure:
    """A panel for each aggregate, in it a row for each of whom it is known; a number without interval is a diamond."""
    who = list(dict.fromkeys(label for panel in aggregates.values() for label in panel))
    figure = new_figure(2.1 * len(aggregates) + 1, 0.42 * len(who) + 1.1)
    for place, (name, panel) in enumerate(aggregates.items(), start=1):
        axes = figure.add_subplot(1, len(aggregates), place)
        for row, (label, color) in enumerate(zip(who, COLORS, strict=False)):
            if label not in panel:
                continue
            shown = panel[label]
            if isinstance(shown, Estimate):
                axes.barh(row, shown.high - shown.low, left=shown.low, height=0.5, color=color, alpha=0.35, linewidth=0)
                axes.plot([shown.value] * 2, [row - 0.25, row + 0.25], color=color, linewidth=2)
            else:
                axes.plot(shown, row, marker="D", markersize=5, color=color)
        axes.set_ylim(len(who) - 0.5, -0.5)
        axes.set_yticks(range(len(who)), who if place == 1 else [""] * len(who))
        axes.set_title(name, fontsize=10)
        axes.use_sticky_edges = False  # else a bar's end is the panel's
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(labelsize=8)
        clean(axes)
    return figure


def draw_improvement(probabilities: Mapping[str, Estimate]) -> Figure:
    """A row for each game; the first one is all games together."""
    figure = new_figure(5.5, 0.24 * len(probabilities) + 1.1)
    axes = figure.add_subplot()
    for row, (label, shown) in enumerate(probabilities.items()):
        color = COLORS[1] if row == 0 else COLORS[0]
        axes.plot([shown.low, shown.high], [row, row], color=color, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(shown.value, row, marker="o", markersize=4.5, color=color)
    axes.axvline(0.5, color=GRAY, linewidth=0.8, linestyle=":")
    axes.set(xlim=(-0.02, 1.02), ylim=(len(probabilities) - 0.5, -0.5))
    axes.set_xlabel("P(a run of ours > a published one of Δ-IRIS)")
    axes.set_yticks(range(len(probabilities)), list(probabilities), fontsize=8)
    clean(axes)
    return figure


def draw_success_rates(rates: Mapping[str, np.ndarray]) -> Figure:
    """Crafter's bars: whose -> `[seeds, 22]` percent; their mean, and a line over the seeds' range.

    The scale is logarithmic, as is customary: rare achievements are what agents differ in.
    """
    figure = new_figure(9, 4)
    axes = figure.add_subplot()
    width = 0.8 / len(rates)
    places = np.arange(len(CRAFTER_ACHIEVEMENTS))
    floor = 0.1  # percent; a rate of 0 has no bar
    for i, (label, percent) in enumerate(rates.items()):
        x = places + (i - (len(rates) - 1) / 2) * width
        height = np.maximum(percent.mean(axis=0) - floor, 0)
        axes.bar(x, height, width, bottom=floor, color=(COLORS[0], LIGHT_GRAY)[i], label=label)
        if len(percent) > 1:
            low, high = (np.maximum(bound, floor) for bound in (percent.min(axis=0), percent.max(axis=0)))
            axes.vlines(x, low, high, color="black", linewidth=0.9)
    axes.set_yscale("log")
    axes.set_ylim(floor, 130)
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.set_ylabel("success rate in percent")
    labels = [name.replace("_", " ") for name in CRAFTER_ACHIEVEMENTS]
    axes.set_xticks(places, labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_xlim(-0.6, len(places) - 0.4)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", frameon=False, ncols=len(rates), fontsize=8)
    return figure
