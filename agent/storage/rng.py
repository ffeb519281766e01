"""The random generators of a process, as what a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def get_random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Python's, NumPy's and torch's generators, CPU and CUDA -> (tensors, rest for JSON)."""
    algorithm, words, *rest = np.random.get_state()
    cuda = {f"cuda_{i}": generator for i, generator in enumerate(torch.cuda.get_rng_state_all())}
    numpy = [algorithm, words.tolist(), *rest]  # type: ignore[attr-defined]
    state = {"python": random.getstate(), "numpy": numpy}
    return {"cpu": torch.get_rng_state(), **cuda}, state


def set_random_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Put back what `get_random_state` gave; a CUDA device that is new is left alone."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    algorithm, words, *rest = state["numpy"]
    np.random.set_state((algorithm, np.array(words, np.uint32), *rest))
    torch.set_rng_state(tensors["cpu"])
    for i in range(torch.cuda.device_count()):
        if f"cuda_{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda_{i}"], i)
