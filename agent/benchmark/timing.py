"""How something is timed, in which modes, on what machine; lines of the printed tables."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.utils.benchmark import Timer

from agent.benchmark.config import BenchmarkConfig
from agent.execution import EAGER, Execution, choose_execution


def timed(function: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of a call, measured one or more times, after calls that do not count."""
    timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds).times


def matrix_product_rate(device: torch.device, seconds: float, bf16: bool) -> float:
    """Floating-point operations a second of a matrix product of 4096 × 4096."""
    a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    return 2 * 4096**3 / median(timed(lambda: a @ a, seconds))


def executions(config: BenchmarkConfig, device: torch.device) -> list[Execution]:
    """What to measure: eager in float32, then each mode in the run's precision."""
    available = ["eager", "compiled"] + ["captured"] * (device.type == "cuda")
    modes = available if config.modes is None else config.modes
    wanted = [choose_execution(mode, config.precision, device, 0.0) for mode in modes]
    return list(dict.fromkeys([EAGER, *wanted]))


def precision_of(execution: Execution) -> str:
    """The precision's name."""
    return "bf16" if execution.bf16 else "fp32"


def about(device: torch.device) -> dict[str, Any]:
    """When and where something was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def line(*cells: object) -> str:
    """A line of a table: columns of 17 letters, numbers with four digits."""
    return " ".join(f"{f'{x:.4g}' if isinstance(x, float) else x!s:>17}" for x in cells)
