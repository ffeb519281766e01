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
        raise BadInput(f"{run} has no metrics.csv with rows; give a run that logs to csv.")
    panels: dict[str, list[str]] = {}
    metrics = dict.fromkeys(name for row in rows for name in row)
    for name in sorted(metrics, key=lambda name: panel_of(name) != "Returns"):
        if name not in ("epoch", "step", "minutes"):
            panels.setdefault(panel_of(name), []).append(name)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    width, height = 5 * columns, 3.5 * lines  # inches, as the margins
    figure = Figure(figsize=(width, height))
    # Matplotlib's layouts draw twice, for a second and more.
    figure.subplots_adjust(0.7 / width, 0.6 / height, 1 - 0.1 / width, 1 - 0.4 / height, 0.2, 0.45)
    for number, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, columns, number)
        # A return is judged by the experience that it took.
        x = "step" if title == "Returns" else "epoch"
        for name in names:
            shown = [row for row in rows if name in row]
            marker = "o" if len(shown) < 30 else ""
            axes.plot(
                [row[x] for row in shown],
                [row[name] for row in shown],
                marker=marker,
                markersize=3,
                label=name,
            )
        if title in ("Tokenizer losses", "Dynamics losses"):  # positive, unlike the policy's
            axes.set_yscale("log")
        axes.set(title=title, xlabel="environment steps" if x == "step" else "epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    files.write(run / "curves.png", picture.getvalue())
    return run / "curves.png"


def panel_of(metric: str) -> str:
    """The title of the panel that a metric is drawn in."""
    part, _, name = metric.rpartition("/")
    if "return" in name and part in ("collect", "evaluate"):
        return "Returns"
    if "codebook" in name:
        return "Codebook use"
    for kind, title in (("loss", "losses"), ("entropy", "entropy")):
        if kind in name:
            return f"{part.capitalize()} {title}"
    return part.capitalize() or "Other"
