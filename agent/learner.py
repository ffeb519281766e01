"""One network, its loss and its optimizer: update(segment) -> metrics, eagerly, compiled or as a CUDA graph."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import torch
from tensordict.nn import CudaGraphModule
from torch import Tensor, nn

from agent.segment import Segment
from envs.errors import BadInput

MODES = ("auto", "eager", "compiled", "captured")
PRECISIONS = ("auto", "bf16", "fp32")
WORTH_COMPILING = 1e15  # operations; what "auto" compiles for on a CPU: docs/performance.md
WARM_UP = {"eager": 1, "compiled": 2, "captured": 3}  # updates until nothing is allocated, compiled or captured anew


class NonFinite(RuntimeError):
    """A loss or a gradient is infinite or not a number."""


@dataclass
class LearnerConfig:
    """mode: how updates run: "eager"; "compiled" (torch.compile); "captured" (compiled, then the whole update as one
    CUDA graph); "auto": captured on CUDA; on a CPU compiled if the run is long enough to pay for the compilation
    """

    mode: str = "auto"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BadInput(f"learner.mode={self.mode} is not known; choose one of {', '.join(MODES)}.")


class Execution(NamedTuple):
    """How updates run here: the mode ("eager", "compiled" or "captured"), and whether under bf16 autocast."""

    mode: str = "eager"
    bf16: bool = False


def choose_execution(mode: str, precision: str, device: torch.device, flop: float) -> Execution:
    """What "auto" stands for on a device; flop: floating-point operations of all the run's updates.

    Raises BadInput if `mode` is not to be had there.
    """
    cuda = device.type == "cuda"
    if mode == "captured" and not cuda:
        raise BadInput(
            f"learner.mode=captured was given and device={device} has no CUDA graphs; choose compiled, eager or auto."
        )
    if mode == "auto":
        worth = has_compiler(device) and (cuda or flop >= WORTH_COMPILING)
        mode = "eager" if not worth else "captured" if cuda else "compiled"
    if mode != "eager" and not has_compiler(device):
        needed = "Triton and a card of compute capability 7 or more" if cuda else "a C++ compiler (g++ or clang++)"
        raise BadInput(f"learner.mode={mode} was given and needs {needed}, which is not here; choose eager or auto.")
    bf16 = has_bf16(device) if precision == "auto" else precision == "bf16"
    return Execution(mode, bf16)


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile finds there what it needs."""
    if device.type == "cuda":
        return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++")))


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 there. On a CPU without the instructions it is 24 times slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def casts_keep_gradients(device: torch.device) -> bool:
    """Whether autocast's cache may be used: in torch 2.7 a weight that was first cast without gradient, in imagination,
    gets none afterwards either."""
    weight = torch.ones(1, 1, device=device, requires_grad=True)
    with torch.autocast(device.type, torch.bfloat16):
        with torch.no_grad():
            nn.functional.linear(weight, weight)
        return nn.functional.linear(weight.detach(), weight).requires_grad


@dataclass
class OptimizerConfig:
    """learning_rate, weight_decay: of AdamW; the decay applies to the weights of linear layers only
    max_gradient_norm: to which the gradient of all parameters together is clipped
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    max_gradient_norm: float = 10.0


class Learner:
    """Updates `module` by `loss`, a function of a segment that returns named scalars, "loss" among them.

    `before_step`, if given, runs between backward and the optimizer's step.
    Nothing in an update reads a value back, so that it can be captured as it stands.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Segment], dict[str, Tensor]],
        config: OptimizerConfig,
        before_step: Callable[[], None] | None = None,
        execution: Execution = Execution(),  # noqa: B008  (immutable)
    ) -> None:
        self.module, self.loss, self.config, self.before_step = module, loss, config, before_step
        self.execution, self.warm_up = execution, WARM_UP[execution.mode]
        self.names = {p: name for name, p in module.named_parameters()}
        decayed = {m.weight for m in module.modules() if isinstance(m, nn.Linear)}
        self.device = next(module.parameters()).device
        groups = [
            {"params": [p for p in self.names if p in decayed], "weight_decay": config.weight_decay},
            {"params": [p for p in self.names if p not in decayed], "weight_decay": 0.0},
        ]
        self.fused = self.device.type in ("cpu", "cuda")  # one kernel for all; the meta device does not know it
        rate = torch.tensor(config.learning_rate, device=self.device if self.fused else "cpu")  # a tensor, for capture
        self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=self.fused, capturable=execution.mode == "captured")

        self.cached_casts = execution.bf16 and casts_keep_gradients(self.device)
        self.forward = self._forward
        if execution.mode != "eager":
            self.forward = torch.compile(self._forward, fullgraph=True, dynamic=False)
        self.run = self._update
        if execution.mode == "captured":
            # It synchronises before each replay; the next batch is prepared by another thread meanwhile.
            with warnings.catch_warnings():  # it takes tensordicts out of torch's pytrees, and says so; we pass none
                warnings.simplefilter("ignore")
                self.run = CudaGraphModule(self._update, warmup=self.warm_up, device=self.device)
        self.updates = 0

    def update(self, segment: Segment) -> dict[str, Tensor]:
        """One step of the optimizer. Returns scalars on the device, detached: the losses and "gradient_norm".

        segment: on the module's device, of the same shape each time
        """
        self.updates += 1
        return self.run(*(getattr(segment, name) for name in Segment.__dataclass_fields__))

    @property
    def settled(self) -> bool:
        """Whether updates only replay by now what the first ones compiled and captured."""
        return self.updates > self.warm_up

    def _forward(self, segment: Segment) -> dict[str, Tensor]:
        if not self.execution.bf16:
            return self.loss(segment)
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.cached_casts):
            return self.loss(segment)

    def _update(self, *tensors: Tensor) -> dict[str, Tensor]:
        segment = Segment(*tensors, batch_size=tensors[-1].shape)
        self.module.train()
        losses = self.forward(segment)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        norm = self.step()
        self.module.eval()
        return {name: value.detach() for name, value in losses.items()} | {"gradient_norm": norm.detach()}

    def step(self) -> Tensor:
        """Clip the gradients that are there and move the weights. Returns the gradient's norm before, a scalar."""
        norm = nn.utils.clip_grad_norm_(self.names, self.config.max_gradient_norm, foreach=self.fused)
        if self.before_step is not None:
            self.before_step()
        self.optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's state: "<parameter>.<moment>" -> tensor."""
        return {
            f"{self.names[p]}.{key}": value for p, state in self.optimizer.state.items() for key, value in state.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`, for the same parameters; what is not in `state` starts anew.

        Tensors that are there already keep their place, which a CUDA graph has recorded.
        """
        for p, name in self.names.items():
            own = self.optimizer.state[p]
            for key in ("step", "exp_avg", "exp_avg_sq"):
                saved = state.get(f"{name}.{key}")
                if key in own:
                    own[key].copy_(saved) if saved is not None else own[key].zero_()
                elif saved is not None:
                    own[key] = saved.to(p.device)  # a fused optimizer counts its steps there too
            if not own:
                del self.optimizer.state[p]


class Averages:
    """Means of the metrics of many updates, read back only when asked."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.count = 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """metrics: scalars on any device, the same names each time."""
        values = torch.stack([value.float() for value in metrics.values()])
        if self.count == 0:
            self.names = list(metrics)
            self.sums, self.finite = torch.zeros_like(values), torch.zeros_like(values)
        self.count += 1
        self.sums += values
        self.finite += values.isfinite()

    def read(self) -> dict[str, float]:
        """Name -> mean. Raises NonFinite, naming the metric that was the first to be infinite or not a number."""
        sums, finite = torch.stack([self.sums, self.finite]).tolist()
        if not all(map(math.isfinite, sums)):
            # Once the weights are broken everything is. Of terms and their sum, a term says more.
            first = min(range(len(sums)), key=lambda i: (finite[i], self.names[i].endswith("loss")))
            raise NonFinite(f"{self.names[first]} is {sums[first]}")
        return {name: value / self.count for name, value in zip(self.names, sums, strict=True)}
