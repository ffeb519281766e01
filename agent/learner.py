"""One network, its loss and its optimizer: update(segment) -> metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agent.segment import Segment


class NonFinite(RuntimeError):
    """A loss or a gradient is infinite or not a number."""


@dataclass
class LearnerConfig:
    """learning_rate, weight_decay: of AdamW; the decay applies to the weights of linear layers only
    max_gradient_norm: to which the gradient of all parameters together is clipped
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    max_gradient_norm: float = 10.0


class Learner:
    """Updates `module` by `loss`, a function of a segment that returns named scalars, "loss" among them.

    `before_step`, if given, runs between backward and the optimizer's step.
    Nothing in `update` reads a value back, so that it can be captured as it stands.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Segment], dict[str, Tensor]],
        config: LearnerConfig,
        before_step: Callable[[], None] | None = None,
    ) -> None:
        self.module, self.loss, self.config, self.before_step = module, loss, config, before_step
        self.names = {p: name for name, p in module.named_parameters()}
        decayed = {m.weight for m in module.modules() if isinstance(m, nn.Linear)}
        device = next(module.parameters()).device
        groups = [
            {"params": [p for p in self.names if p in decayed], "weight_decay": config.weight_decay},
            {"params": [p for p in self.names if p not in decayed], "weight_decay": 0.0},
        ]
        fused = device.type in ("cpu", "cuda")  # one kernel for all; the meta device does not know it
        rate = torch.tensor(config.learning_rate, device=device if fused else "cpu")  # a tensor, for capture
        self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=fused, capturable=device.type == "cuda")

    def update(self, segment: Segment) -> dict[str, Tensor]:
        """One step of the optimizer. Returns scalars on the device, detached: the losses and "gradient_norm"."""
        self.module.train()
        losses = self.loss(segment)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.names, self.config.max_gradient_norm)
        if self.before_step is not None:
            self.before_step()
        self.optimizer.step()
        self.module.eval()
        return {name: value.detach() for name, value in losses.items()} | {"gradient_norm": norm.detach()}

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's state: "<parameter>.<moment>" -> tensor."""
        return {
            f"{self.names[p]}.{key}": value for p, state in self.optimizer.state.items() for key, value in state.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`, for the same parameters."""
        for p, name in self.names.items():
            own = {key: state[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}.{key}" in state}
            if own:
                # A fused optimizer counts its steps on the parameter's device.
                self.optimizer.state[p] = {key: value.to(p.device) for key, value in own.items()}


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
