"""The operations of an update, recorded: names, arithmetic and bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, ops
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from agent.agent import sketch_agent
from agent.config import TrainConfig
from agent.training.components import PARTS
from agent.training.costs import noise
from envs.spaces import Spaces


class Operation(NamedTuple):
    """One kernel.

    Attributes:
        name: As in "aten.convolution".
        flop: Floating-point operations of a product, convolution or attention; else 0.
        bytes: Of the tensors that it reads and of those that it writes.
    """

    name: str
    flop: int
    bytes: int


WITHOUT_KERNEL = {  # they make tensors and launch nothing
    ops.aten.empty, ops.aten.empty_like, ops.aten.empty_strided, ops.aten.new_empty,
    ops.aten.new_empty_strided, ops.aten.lift_fresh, ops.aten._unsafe_view,
}  # fmt: skip


class Recorder(TorchDispatchMode):
    """Records, as a context, the operations for which a GPU launches a kernel, in order.

    It works on any device, meta too. The device decides what attention is: one operation on CPU
    and CUDA, and on meta two matrix products with what lies between. The CPU's counts 0 flop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output, operation = func(*args, **kwargs), func.overloadpacket
        read = [args, {name: value for name, value in kwargs.items() if name != "out"}]
        written = args if output is None else output  # _foreach_mul_ and the like return nothing
        if operation is ops.aten.index_copy_:  # touches the slices that it copies, not the whole
            read, written = [args[2:]], args[3]
        if not func.is_view and operation not in WITHOUT_KERNEL and size(written):
            formula = flop_registry.get(operation)
            flop = formula(*args, **kwargs, out_val=output) if formula else 0
            self.operations.append(Operation(str(operation), flop, size(read) + size(written)))
        return output


def size(values: Any) -> int:
    """Bytes of the tensors among nested values."""
    return sum(x.nbytes for x in tree_leaves(values) if isinstance(x, Tensor))


def record_updates(config: TrainConfig, spaces: Spaces) -> dict[str, list[Operation]]:
    """Part -> the operations of an update in float32, from a run on the meta device."""
    recordings = {}
    for part in PARTS:
        agent = sketch_agent(config.agent, spaces)
        loss, segment = getattr(agent, f"{part}_loss"), noise(agent, config, part)
        with Recorder() as recorder:
            loss(segment)["loss"].backward()
        parameters = sum(p.nbytes for p in getattr(agent, part).parameters())
        # Clipping and the fused optimizer, which the meta device does not have.
        recordings[part] = [
            *recorder.operations,
            Operation("aten._foreach_norm", 0, parameters),
            Operation("aten._foreach_mul_", 0, 2 * parameters),
            Operation("aten._fused_adamw_", 0, 7 * parameters),
        ]
    return recordings
