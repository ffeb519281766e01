"""The operations of an update, recorded: names, arithmetic and bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, ops
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from agent.agent import sketch_agent
from agent.config import TrainConfig
from agent.training.components import PARTS, noise
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


# They make tensors without a kernel.
WITHOUT_KERNEL = {
    getattr(ops.aten, name)
    for name in "empty empty_like empty_strided new_empty new_empty_strided lift_fresh "  # noqa: SIM905 (one a line is long)
    "_unsafe_view".split()
}


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
        output = func(*args, **kwargs)
        packet, schema = func.overloadpacket, func._schema
        names = [argument.name for argument in schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        written = [given[a.name] for a in schema.arguments if a.is_write and a.name in given]
        outputs = output if len(schema.returns) > 1 else [output]
        written += [
            x for x, to in zip(outputs, schema.returns, strict=False) if to.alias_info is None
        ]
        if func.is_view or packet in WITHOUT_KERNEL or not tensors(written):
            return output
        formula = flop_registry.get(packet)
        flop = formula(*args, **kwargs, out_val=output) if formula else 0
        read = [given[a.name] for a in schema.arguments if a.name in given and not a.is_out]
        if packet is ops.aten.index_copy_:  # touches the slices that it copies, not the whole
            read, written = [given["index"], given["source"]], [given["source"]]
        self.operations.append(Operation(str(packet), flop, size(read) + size(written)))
        return output


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among values and lists of values."""
    return [x for x in tree_leaves(list(values)) if isinstance(x, Tensor)]


def size(values: Iterable[Any]) -> int:
    """Bytes of the tensors among values and lists of values."""
    return sum(x.nbytes for x in tensors(values))


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
