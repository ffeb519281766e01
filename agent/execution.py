"""How a function of tensors runs: eager, compiled or as a CUDA graph; in float32 or bf16.

Only this file knows about autocast, compilation and CUDA graphs. The functions it runs must not
read tensors back to the host, branch on data or change shapes.
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
from torch import nn

from agent.config.training import MODES, check_choice
from envs.errors import BadInput

WORTH_COMPILING = 2e14  # operations; what "auto" compiles for on a CPU: docs/performance.md
WARM_UP = {
    "eager": 1,
    "compiled": 2,
    "captured": 3,
}  # calls until nothing is allocated, compiled or captured anew


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

    flop: floating-point operations of all that will run, by which a CPU's compilation pays or not
    key:  under which the mode is given

    Raises BadInput if `mode` is not known, or not to be had there.
    """
    check_choice(key, mode, MODES)
    cuda = device.type == "cuda"
    if mode == "captured" and not cuda:
        raise BadInput(
            f"{key}=captured was given and device={device} has no CUDA graphs; "
            "choose compiled, eager or auto."
        )
    if mode == "auto":
        worth = has_compiler(device) and (cuda or flop >= WORTH_COMPILING)
        mode = "eager" if not worth else "captured" if cuda else "compiled"
    if mode != "eager" and not has_compiler(device):
        needed = (
            "Triton and a card of compute capability 7 or more"
            if cuda
            else "a C++ compiler (g++ or clang++)"
        )
        raise BadInput(
            f"{key}={mode} was given and needs {needed}, which is not here; choose eager or auto."
        )
    bf16 = has_bf16(device) if precision == "auto" else precision == "bf16"
    return Execution(mode, bf16)


def be_deterministic() -> None:
    """Restrict torch to deterministic algorithms. Call it before anything is computed on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = (
        False  # for those who read what nobody wrote
    )


def pick_device(name: str) -> torch.device:
    """ "auto" or a device's name -> the device.

    Raises:
        BadInput: it is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise BadInput(
            f"device={name} is not on this machine; choose one of {', '.join(there)}."
        ) from error
    return device


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile finds there what it needs."""
    if device.type == "cuda":
        return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (
            7,
            0,
        )
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 on the device.

    On a CPU without bf16 instructions it is 24 times slower.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def casts_keep_gradients(device: torch.device) -> bool:
    """Whether autocast's weight cache is safe to use.

    In torch 2.7 a weight that was first cast without gradient, as in imagination, gets no gradient
    afterwards either.
    """
    weight = torch.ones(1, 1, device=device, requires_grad=True)
    with torch.autocast(device.type, torch.bfloat16):
        with torch.no_grad():
            nn.functional.linear(weight, weight)
        return nn.functional.linear(weight.detach(), weight).requires_grad


def autocast(
    execution: Execution, device: torch.device, cached: bool = True
) -> AbstractContextManager[Any]:
    """Within, matrix products and convolutions are bf16's, where `execution` says so.

    cached: whether a weight is cast once for all within; see `casts_keep_gradients`
    """
    if not execution.bf16:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=cached)


def compiled(function: Callable[..., Any], execution: Execution) -> Callable[..., Any]:
    """The function, whole and for fixed shapes, as `execution` compiles it or does not."""
    return (
        function
        if execution.mode == "eager"
        else torch.compile(function, fullgraph=True, dynamic=False)
    )


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
    with (
        warnings.catch_warnings()
    ):  # it takes tensordicts out of torch's pytrees, and says so; we pass none
        warnings.simplefilter("ignore")
        return CudaGraphModule(function, warmup=WARM_UP["captured"], device=device)
