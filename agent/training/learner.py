"""One network, its loss and its optimizer: eager, compiled or captured as a CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from agent.config import OptimizerConfig
from agent.execution import EAGER, WARM_UP, Execution, autocast, captured, compiled
from agent.segment import Segment
from envs.errors import Stopped


class Learner:
    """Updates `module` by AdamW on `loss`, a function of a segment that returns named scalars.

    Nothing in an update reads a value back, so that it can be captured as it stands.

    Args:
        loss: Its result has the scalar to minimise as "loss".
        before_step: Runs between backward and the optimizer's step.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Segment], dict[str, Tensor]],
        config: OptimizerConfig,
        before_step: Callable[[], None] | None = None,
        execution: Execution = EAGER,
    ) -> None:
        self.module, self.loss, self.config, self.before_step = module, loss, config, before_step
        self.execution, self.updates = execution, 0
        self.warm_up = WARM_UP[execution.mode]  # updates, which compile and capture
        self.device = next(module.parameters()).device
        self.fused = self.device.type != "meta"  # one kernel for all parameters
        scalars = self.device if self.fused else torch.device("cpu")
        # A tensor, so that a captured update reads it anew.
        self.rate = torch.tensor(config.learning_rate, device=scalars)
        self.flags = torch.tensor(0.0, device=self.device), torch.tensor(1.0, device=self.device)

        self.names = {p: name for name, p in module.named_parameters()}
        decayed = {m.weight for m in module.modules() if isinstance(m, nn.Linear)}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.names if p in decayed]},
                {"params": [p for p in self.names if p not in decayed], "weight_decay": 0.0},
            ],
            lr=self.rate,
            weight_decay=config.weight_decay,
            fused=self.fused,
            capturable=execution.mode == "captured",
        )
        for p in self.names:  # at fixed addresses from the start, as a CUDA graph wants
            moments = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.optimizer.state[p] = {"step": torch.tensor(0.0, device=scalars), **moments}

        self.forward = compiled(self._forward, execution)
        self.run = captured(self._update, execution, self.device)

    def update(self, segment: Segment) -> dict[str, Tensor]:
        """One optimizer step, which a gradient that is not finite leaves out.

        Args:
            segment: On the module's device, of the same shape each time.

        Returns:
            Detached scalars on the device: the losses, and "gradient_norm" before clipping.
        """
        self.updates += 1
        return self.run(*(getattr(segment, name) for name in Segment.__dataclass_fields__))

    def set_learning_rate(self, rate: float) -> None:
        """From the next update on, one that is captured too. It is no part of `state_dict`."""
        self.rate.fill_(rate)

    def _forward(self, segment: Segment) -> dict[str, Tensor]:
        with autocast(self.execution, self.device):
            return self.loss(segment)

    def _update(self, *tensors: Tensor) -> dict[str, Tensor]:
        segment = Segment(*tensors, batch_size=tensors[-1].shape)
        self.module.train()
        losses = self.forward(segment)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        most = self.config.max_gradient_norm
        norm = nn.utils.clip_grad_norm_(self.names, most, foreach=self.fused)
        if self.fused:  # its kernel leaves weights and moments alone where this is 1
            self.optimizer.found_inf = torch.where(norm < math.inf, *self.flags)
        if self.before_step is not None:
            self.before_step()
        self.optimizer.step()
        self.module.eval()
        return {name: value.detach() for name, value in {**losses, "gradient_norm": norm}.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's state: "<parameter>.<moment>" -> tensor."""
        return {
            f"{name}.{key}": value
            for p, name in self.names.items()
            for key, value in self.optimizer.state[p].items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy the inverse of `state_dict` into the tensors that are there."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])


class NonFinite(Stopped):
    """A loss or a gradient is infinite or not a number, `ago` updates before the latest."""

    def __init__(self, message: str, ago: int = 0) -> None:
        super().__init__(message)
        self.ago = ago


class Averages:
    """Means of the metrics of many updates, read back only when asked.

    Args:
        state: From `state_dict`, to go on from there.
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        state = state or {"sums": {}, "count": 0}
        self.sums, self.count = dict(state["sums"]), state["count"]
        self.names: list[str] = []
        self.unread: list[Tensor] = []

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add an update's scalars, on any device, of the same names each time."""
        self.names = list(metrics)
        self.unread.append(torch.stack([value.float() for value in metrics.values()]))

    def read(self) -> dict[str, float]:
        """The mean of each metric. Raises NonFinite at the first update with one that is not."""
        updates = torch.stack(self.unread).tolist() if self.unread else []
        self.unread.clear()
        for i, values in enumerate(updates, start=1):
            metrics = dict(zip(self.names, values))
            if broken := [name for name, value in metrics.items() if not math.isfinite(value)]:
                # A term says more than the sum and its gradient.
                name = min(broken, key=lambda name: name.endswith(("loss", "gradient_norm")))
                raise NonFinite(f"{name} is {metrics[name]}", ago=len(updates) - i)
            self.count += 1
            for name, value in metrics.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
        return {name: value / self.count for name, value in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold, to the bit, of what was read."""
        return {"sums": self.sums, "count": self.count}
