"""The curves of a run as one picture."""

from __future__ import annotations

import io
from pathlib import Path

from agent.storage import files
from agent.storage.metrics import read_metrics
from envs.errors import BadInput


def plot_curves(run: Path) -> Path:
    """Draw `run`/metrics.csv as `run`/curves.png, one panel per kind of metric that it holds."""
    from matplotlib.figure import Figure  # slow to import; without pyplot it needs no display

    rows = read_metrics(run / "metrics.csv")
    if not rows:
        raise BadInput(
            f"{run} has no metrics.csv with rows in it; give the folder of a run that logs to csv."
        )
    panels = _panels(
        list(
            dict.fromkeys(
                name for row in rows for name in row if name not in ("epoch", "step", "minutes")
            )
        )
    )
    width = min(3, len(panels))
    height = -(-len(panels) // width)
    figure = Figure(figsize=(5 * width, 3.2 * height), dpi=110, layout="constrained")
    for place, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(height, width, place)
        x = (
            "step" if title == "Returns" else "epoch"
        )  # a return is judged by the experience that it took
        for name in names:
            points = [(row[x], row[name]) for row in rows if name in row]
            marker = "o" if len(points) < 30 else ""
            axes.plot(
                *zip(*points, strict=True), marker=marker, markersize=3, linewidth=1.3, label=name
            )
        positive = all(not row[name] <= 0 for name in names for row in rows if name in row)
        if title.endswith("losses") and positive:
            axes.set_yscale("log")
        axes.set(title=title, xlabel="environment steps" if x == "step" else "epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    files.write(run / "curves.png", picture.getvalue())
    return run / "curves.png"


def _panels(metrics: list[str]) -> dict[str, list[str]]:
    """Title -> names of the metrics drawn in it; only panels that have some."""
    panels: dict[str, list[str]] = {"Returns": []}
    for name in metrics:
        part, _, what = name.rpartition("/")
        if "return" in what and part in ("collect", "evaluate"):
            title = "Returns"
        elif "loss" in what:
            title = f"{part.capitalize()} losses"
        elif "entropy" in what:
            title = f"{part.capitalize()} entropy"
        elif "codebook" in what:
            title = "Codebook use"
        else:
            title = part.capitalize() or "Other"
        panels.setdefault(title, []).append(name)
    return {title: names for title, names in panels.items() if names}
