"""A figure: the parts' updates under what this machine's arithmetic and memory allow."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import torch

from agent.benchmark.config import BenchmarkConfig
from agent.benchmark.record import record_updates
from agent.benchmark.timing import timed
from agent.execution import pick_device
from envs.spaces import Spaces


def memory_bandwidth(device: torch.device, seconds: float) -> float:
    """Bytes a second that a copy of half a gigabyte reads and writes."""
    a = torch.ones(2**27, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / median(timed(lambda: b.copy_(a), seconds))


def draw(result: dict[str, Any], config: BenchmarkConfig, spaces: Spaces, path: Path) -> None:
    """Draw each part and mode: operations a second over operations a byte.

    Args:
        result: of `measure_run`; the memory's rate is added to it.
        config: that was measured.
        spaces: of the environment.
        path: of the PNG.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    bandwidth = memory_bandwidth(pick_device(config.device), config.seconds / 4) / 1e9
    result["copy_gigabytes_per_second"] = bandwidth
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    intensities = [10 ** (i / 10) for i in range(31)]
    for name, rate in result["matrix_product_gflop_per_second"].items():
        axes.plot(intensities, [min(rate, x * bandwidth) for x in intensities], label=name)
    for part, operations in record_updates(config, spaces).items():
        measured = result["parts"][part]
        x = 1e9 * measured["gflop"] / sum(operation.bytes for operation in operations)
        for row, marker in zip(measured["modes"], "osD^", strict=False):
            label = f"{row['mode']} {row['precision']}" if part == "tokenizer" else None
            y = measured["gflop"] / row["seconds_per_update"]
            axes.plot(x, y, marker, color="black", label=label)
        axes.annotate(part, (x, y), xytext=(6, -12), textcoords="offset points")
    axes.set(xscale="log", yscale="log", title=config.experiment, ylabel="GFLOP/s")
    axes.set(xlabel="floating-point operations a byte, as eager operations read and write in fp32")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
