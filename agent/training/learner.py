"""One network, its loss and its optimizer: eager, compiled or captured as a CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from agent.config import OptimizerConfig
from agent.execution import (
    EAGER,
    WARM_UP,
    Execution,
    autocast,
    captured,
    casts_keep_gradients,
    compiled,
)
from agent.segment import Segment
from envs.errors import Stopped


class NonFinite(Stopped):
    """A loss or a gradient is infinite or not a number.

    ago: how many updates lie between that one and the latest
    """

    def __init__(self, message: str, ago: int = 0) -> None:
        super().__init__(message)
        self.ago = ago


class Learner:
    """Updates `module` by `loss`, a function of a segment that returns named scalars.

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
        self.execution, self.warm_up = execution, WARM_UP[execution.mode]
        self.names = {p: name for name, p in module.named_parameters()}
        decayed = {m.weight for m in module.modules() if isinstance(m, nn.Linear)}
        self.device = next(module.parameters()).device
        groups = [
            {
                "params": [p for p in self.names if p in decayed],
                "weight_decay": config.weight_decay,
            },
            {"params": [p for p in self.names if p not in decayed], "weight_decay": 0.0},
        ]
        self.fused = self.device.type in (
            "cpu",
            "cuda",
        )  # one kernel for all; the meta device does not know it
        self.flags = torch.tensor(0.0, device=self.device), torch.tensor(1.0, device=self.device)
        self.rate = torch.tensor(
            config.learning_rate, device=self.device if self.fused else "cpu"
        )  # a tensor, for capture
        self.optimizer = torch.optim.AdamW(
            groups, lr=self.rate, fused=self.fused, capturable=execution.mode == "captured"
        )

        self.cached_casts = execution.bf16 and casts_keep_gradients(self.device)
        self.forward = compiled(self._forward, execution)
        self.run = captured(
            self._update, execution, self.device
        )  # the next batch is prepared by another thread meanwhile
        self.updates = 0

    def update(self, segment: Segment) -> dict[str, Tensor]:
        """One optimizer step.

        Args:
            segment: On the module's device, of the same shape each time.

        Returns:
            Detached scalars on the device: the losses and "gradient_norm".
        """
        self.updates += 1
        return self.run(*(getattr(segment, name) for name in Segment.__dataclass_fields__))

    def set_learning_rate(self, rate: float) -> None:
        """From the next update on, one that is captured too. It is no part of `state_dict`."""
        self.rate.fill_(rate)

    @property
    def settled(self) -> bool:
        """Whether updates only replay by now what the first ones compiled and captured."""
        return self.updates > self.warm_up

    def _forward(self, segment: Segment) -> dict[str, Tensor]:
        with autocast(self.execution, self.device, self.cached_casts):
            return self.loss(segment)

    def _update(self, *tensors: Tensor) -> dict[str, Tensor]:
        segment = Segment(*tensors, batch_size=tensors[-1].shape)
        self.module.train()
        losses = self.forward(segment)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        norm = self.step()
        self.module.eval()
        return {name: value.detach() for name, value in losses.items()} | {
            "gradient_norm": norm.detach()
        }

    def step(self) -> Tensor:
        """Clip the gradients and step the optimizer, unless a gradient is not finite.

        Returns:
            The gradient's norm before clipping, a scalar.
        """
        norm = nn.utils.clip_grad_norm_(
            self.names, self.config.max_gradient_norm, foreach=self.fused
        )
        if (
            self.fused
        ):  # its kernel leaves weights and moments alone where this is 1: nothing is read back
            self.optimizer.found_inf = torch.where(norm < math.inf, *self.flags)
        if self.before_step is not None:
            self.before_step()
        self.optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's state: "<parameter>.<moment>" -> tensor."""
        return {
            f"{self.names[p]}.{key}": value
            for p, state in self.optimizer.state.items()
            for key, value in state.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`, for the same parameters; what is not in `state` starts anew.

        Existing tensors are overwritten in place, as a CUDA graph has recorded their addresses.

        Raises:
            ValueError: If the saved tensors have other shapes or types.
        """
        for p, name in self.names.items():
            for key, shape in (
                ("step", torch.Size()),
                ("exp_avg", p.shape),
                ("exp_avg_sq", p.shape),
            ):
                saved = state.get(f"{name}.{key}")
                if saved is not None and (saved.shape != shape or not saved.is_floating_point()):
                    raise ValueError(
                        f"{name}.{key} is {list(saved.shape)} of {saved.dtype}, and the parameter "
                        f"{list(p.shape)}"
                    )
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
    """Means of the metrics of many updates, read back only when asked.

    Updates with a metric that is not finite are left out.

    Args:
        skips: How many of these are accepted.
        state: From `state_dict`, to go on from there.
    """

    def __init__(self, skips: int = 0, state: dict[str, Any] | None = None) -> None:
        self.skips = skips
        state = state or {"sums": {}, "count": 0, "skipped": 0}
        self.sums: dict[str, float] = dict(state["sums"])
        self.count: int = state["count"]
        self.skipped: int = state["skipped"]
        self.names: list[str] = []
        self.unread: list[Tensor] = []

    def add(self, metrics: dict[str, Tensor]) -> None:
        """metrics: scalars on any device, the same names each time."""
        self.names = list(metrics)
        self.unread.append(torch.stack([value.float() for value in metrics.values()]))

    def read(self) -> dict[str, float]:
        """The mean of each metric.

        Raises:
            NonFinite: Naming the metric, for the first update beyond `skips` that has one.
        """
        updates = torch.stack(self.unread).tolist() if self.unread else []
        self.unread.clear()
        for i, values in enumerate(updates, start=1):
            broken = [
                name
                for name, value in zip(self.names, values, strict=True)
                if not math.isfinite(value)
            ]
            if broken:
                self.skipped += 1
                if self.skipped > self.skips:
                    # Of terms, their sum and its gradient, a term says most.
                    name = min(
                        broken,
                        key=lambda name: (name.endswith("gradient_norm"), name.endswith("loss")),
                    )
                    raise NonFinite(
                        f"{name} is {values[self.names.index(name)]}", ago=len(updates) - i
                    )
                continue
            self.count += 1
            for name, value in zip(self.names, values, strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + value
        return {name: value / self.count for name, value in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """What JSON can hold, to the bit. Raises NonFinite as `read`."""
        self.read()
        return {"sums": self.sums, "count": self.count, "skipped": self.skipped}
