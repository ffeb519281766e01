"""How something is timed, in which modes, and on what machine."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.utils.benchmark import Timer

from agent.benchmark.config import BenchmarkConfig
from agent.execution import Execution, choose_execution

BASELINE = Execution("eager", bf16=False)


def timed(function: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of a call, measured one or more times, after calls that do not count."""
    timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds).times


def matrix_product_rate(device: torch.device, seconds: float, bf16: bool) -> float:
    """Floating-point operations a second of a matrix product of 4096 × 4096."""
    a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    return 2 * 4096**3 / median(timed(lambda: a @ a, seconds))


def executions(
    config: BenchmarkConfig, device: torch.device, chosen: Execution | None = None
) -> list[Execution]:
    """What to measure: the baseline, each mode in the run's precision, and what training uses."""
    available = ["eager", "compiled"] + ["captured"] * (device.type == "cuda")
    modes = available if config.modes is None else config.modes
    wanted = [choose_execution(mode, config.precision, device, 0.0) for mode in modes]
    return list(dict.fromkeys([BASELINE, *wanted, *([chosen] if chosen else [])]))


def about(device: torch.device) -> dict[str, Any]:
    """When and where something was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
