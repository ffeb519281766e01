"""How a function of tensors runs: eager, compiled or as a CUDA graph; in float32 or bf16.

The functions that it runs must not read tensors back to the host, branch on data or change shapes.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from tensordict.nn import CudaGraphModule

from agent.config.training import MODES, check_choice
from envs.errors import BadInput

# Operations from which "auto" compiles on a CPU: docs/performance.md.
WORTH_COMPILING = 2e14
# Calls until nothing is allocated, compiled or captured anew.
WARM_UP = {"eager": 1, "compiled": 2, "captured": 3}
# Before, a weight that was first cast without gradient, as in imagination, got none afterwards.
CACHE_CASTS = torch.__version__ >= "2.11"


class Execution(NamedTuple):
    """How to run a function here.

    Attributes:
        mode: "eager", "compiled" or "captured" (as a CUDA graph).
        bf16: Whether to run under bf16 autocast.
    """

    mode: str = "eager"
    bf16: bool = False


EAGER = Execution()


def choose_execution(
    mode: str, precision: str, device: torch.device, flop: float, key: str = "learner.mode"
) -> Execution:
    """What "auto" stands for on a device.

    Args:
        flop: Floating-point operations of all that will run: whether compiling pays on a CPU.
        key: Under which the mode is given.

    Raises:
        BadInput: `mode` is not known, or not to be had there.
    """
    check_choice(key, mode, MODES)
    cuda, can_compile = device.type == "cuda", has_compiler(device)
    if mode == "auto":
        worth = can_compile and (cuda or flop >= WORTH_COMPILING)
        mode = "eager" if not worth else "captured" if cuda else "compiled"
    if mode == "captured" and not cuda:
        raise BadInput(
            f"{key}=captured needs CUDA, and device={device}; choose compiled, eager or auto."
        )
    if mode != "eager" and not can_compile:
        needed = "Triton and a card of compute capability 7" if cuda else "g++ or clang++"
        raise BadInput(f"{key}={mode} needs {needed}, not found here; choose eager or auto.")
    return Execution(mode, has_bf16(device) if precision == "auto" else precision == "bf16")


def be_deterministic() -> None:
    """Restrict torch to deterministic algorithms. Call it before anything is computed on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)
    # Nothing reads what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def pick_device(name: str) -> torch.device:
    """ "auto" or a device's name -> the device. Raises BadInput if it is not on this machine."""
    cuda = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    there = ["auto", "cpu", *(cuda if torch.cuda.is_available() else ())]
    if name not in there:
        raise BadInput(f"device={name} is not on this machine; choose one of {', '.join(there)}.")
    if name == "auto":
        return torch.device("cuda" if "cuda" in there else "cpu")
    return torch.device(name)


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile finds there what it needs."""
    if device.type == "cuda":
        return find_spec("triton") is not None and torch.cuda.get_device_capability(device)[0] >= 7
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 there: on a CPU without it, it is 24 times slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def autocast(execution: Execution, device: torch.device) -> AbstractContextManager[Any]:
    """Within, matrix products and convolutions are bf16's, where `execution` says so."""
    if not execution.bf16:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=CACHE_CASTS)


def compiled(function: Callable[..., Any], execution: Execution) -> Callable[..., Any]:
    """The function, compiled as a whole and for fixed shapes unless `execution` is eager."""
    if execution.mode == "eager":
        return function
    return torch.compile(function, fullgraph=True, dynamic=False)


def captured(
    function: Callable[..., Any], execution: Execution, device: torch.device
) -> Callable[..., Any]:
    """The function as one CUDA graph, if `execution` captures; otherwise the function itself.

    The graph is recorded after the first calls and replayed from then on. Each replay synchronises
    the device first.

    Args:
        function: Takes tensors as positional arguments. It may write in place to other tensors,
            which must stay at their addresses.
    """
    if execution.mode != "captured":
        return function
    with warnings.catch_warnings():  # of tensordicts in torch's pytrees: we pass none
        warnings.simplefilter("ignore")
        return CudaGraphModule(function, warmup=WARM_UP["captured"], device=device)
