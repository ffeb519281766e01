"""The random generators of a process, as what a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.errors import BadInput


def get_random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Python's, NumPy's global and torch's generators, CPU and every CUDA device: (tensors, JSON-able rest)."""
    algorithm, words, *rest = np.random.get_state()
    cuda = {f"cuda_{i}": generator for i, generator in enumerate(torch.cuda.get_rng_state_all())}
    state = {"python": random.getstate(), "numpy": [algorithm, words.tolist(), *rest]}
    return {"cpu": torch.get_rng_state(), **cuda}, state


def set_random_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Put back what `get_random_state` gave; a CUDA device that was not there then is left alone."""
    try:
        version_, words, gauss_next = state["python"]
        random.setstate((version_, tuple(words), gauss_next))
        algorithm, words, *rest = state["numpy"]
        np.random.set_state((algorithm, np.array(words, np.uint32), *rest))
        torch.set_rng_state(tensors["cpu"])
        for i in range(torch.cuda.device_count()):
            if f"cuda_{i}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda_{i}"], i)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise BadInput("The checkpoint's random states are of another kind; give another checkpoint.") from error
