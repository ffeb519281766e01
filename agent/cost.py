"""What an update costs on a graphics card that is not here: its operations, recorded, and a model of the card."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, UntypedStorage, ops
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# Shares of the rates on the data sheet. Calibrated, with LAUNCH, on PUBLISHED: see check_against_published.
COMPUTE_EFFICIENCY = 0.4
BANDWIDTH_EFFICIENCY = 0.4  # low: bytes count once, and kernels (a group norm's, autocast's casts) go over them again
LAUNCH = 45e-6  # seconds of host time an eager operation, Python and autograd included
REPLAY = 2e-6  # seconds; not calibrated: about 1 between two kernels of a graph, and a kernel's start and end


class Operation(NamedTuple):
    """name: as in "aten.convolution"
    flop:    floating-point operations of a matrix product, convolution or attention; 0 for all else
    bytes:   of the tensors that it reads and of those that it writes
    """

    name: str
    flop: int
    bytes: int


class Recorder(TorchDispatchMode):
    """Records in order the operations in its context for which a GPU launches a kernel; views are left out.

    Works on any device, meta among them. The device decides what attention is: one operation on CPU and CUDA,
    on meta two matrix products and what lies between. (The CPU's has no flop formula in PyTorch 2.13: it counts as 0.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    @property
    def flop(self) -> int:
        return sum(operation.flop for operation in self.operations)

    @property
    def bytes(self) -> int:
        return sum(operation.bytes for operation in self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        packet, schema = func.overloadpacket, func._schema
        given = dict(zip([argument.name for argument in schema.arguments], args, strict=False)) | kwargs
        overwritten = [given[a.name] for a in schema.arguments if a.is_write and a.name in given]
        outputs = output if len(schema.returns) > 1 else [output]
        new = [x for x, returned in zip(outputs, schema.returns, strict=False) if returned.alias_info is None]
        if func.is_view or packet in WITHOUT_KERNEL or not tensors(overwritten + new):
            return output
        formula = flop_registry.get(packet)
        flop = formula(*args, **kwargs, out_val=output) if formula else 0
        read = [given[a.name] for a in schema.arguments if a.name in given and not a.is_out]
        if packet is ops.aten.index_copy_:  # touches the slices that it copies, not the whole
            read, overwritten = [given["index"], given["source"]], [given["source"]]
        self.operations.append(Operation(str(packet), flop, size(read) + size(overwritten + new)))
        return output


class Held(saved_tensors_hooks):
    """Counts in its context what forward passes keep for their backward passes, parameters aside.

    Works on any device, meta among them, and for compiled code, which keeps less and computes it again.
    """

    def __init__(self) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        self.storages: dict[int, UntypedStorage] = {}

    def __enter__(self) -> Held:
        super().__enter__()
        return self

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())

    def _keep(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, Parameter) and not isinstance(tensor._base, Parameter):
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = storage
        return tensor.detach()  # kept as it is, an operation's own result would keep the operation, which keeps the result


def compiled_launches(source: str) -> int:
    """Kernels that a file of Inductor's generated Python launches: its own, fused ones and those of libraries."""
    functions = {f.name: f for f in ast.walk(ast.parse(source)) if isinstance(f, ast.FunctionDef)}

    def launches(name: str) -> int:
        called = [ast.unparse(node.func) for node in ast.walk(functions[name]) if isinstance(node, ast.Call)]
        return sum(launches(other) if other in functions else bool(KERNEL.fullmatch(other)) for other in called)

    return launches("call") if "call" in functions else 0


KERNEL = re.compile(r"cpp_fused\w*|triton_\w+\.run|extern_kernels\.\w+|torch\.ops\.(?!inductor)\w+\.\w+(\.\w+)?|aten\.\w+.*")


def without_elementwise(operations: Iterable[Operation]) -> list[Operation]:
    """What is left for a compiler that fuses every elementwise operation into a neighbour: a lower bound, roughly."""
    return [operation for operation in operations if operation.name.removeprefix("aten.") not in ELEMENTWISE]


ELEMENTWISE = frozenset(
    "add sub mul div neg abs sign sgn pow exp expm1 log log1p sigmoid tanh silu gelu relu where clamp clamp_min round eq "
    "lt addcmul lerp _to_copy clone copy_ fill_ zeros new_zeros scalar_tensor threshold_backward silu_backward "
    "gelu_backward sigmoid_backward tanh_backward exponential_ add_ mul_".split()
)


def optimizer_operations(parameters: int) -> list[Operation]:
    """Clipping and a fused AdamW, of float32 parameters: what the meta device cannot record."""
    return [
        Operation("aten._foreach_norm", 0, 4 * parameters),
        Operation("aten._foreach_mul_", 0, 8 * parameters),
        Operation("aten._fused_adamw_", 0, 28 * parameters),
    ]


# New tensors, but no kernel: memory that nothing is written to, or a second name of memory that is there.
WITHOUT_KERNEL = {
    getattr(ops.aten, name)
    for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_unsafe_view")
}


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among values and lists of values."""
    return [x for x in tree_leaves(list(values)) if isinstance(x, Tensor)]


def size(values: Iterable[Any]) -> int:
    """Bytes of the tensors among values and lists of values."""
    return sum(x.numel() * x.element_size() for x in tensors(values))


@dataclass(frozen=True)
class Card:
    """bf16, tf32: floating-point operations a second of the tensor cores, dense, accumulated in float32
    fp32:      of the CUDA cores
    bandwidth: bytes a second of the memory
    launch:    seconds that an eager operation costs the host
    replay:    seconds that an operation takes on the card besides its work
    """

    name: str
    bf16: float
    tf32: float
    fp32: float
    bandwidth: float
    launch: float = LAUNCH
    replay: float = REPLAY

    def work(self, operation: Operation, precision: str) -> float:
        """Seconds, by whichever of arithmetic and memory takes longer. precision: "bf16" or "fp32".

        In "fp32", convolutions use TF32 and matrix products do not: PyTorch's defaults.
        """
        convolution = "convolution" in operation.name
        peak = {"bf16": self.bf16, "fp32": self.tf32 if convolution else self.fp32}[precision]
        return max(
            operation.flop / (peak * COMPUTE_EFFICIENCY), operation.bytes / (self.bandwidth * BANDWIDTH_EFFICIENCY)
        )


# From NVIDIA's data sheets of A100 (SXM, 40 GB), H100 (SXM) and L4, and the white papers of the GA102 and Ada
# architectures, appendix A. Where a data sheet gives the rate for sparse matrices, half of it.
CARDS = {
    card.name: card
    for card in (
        Card("A100", bf16=312e12, tf32=156e12, fp32=19.5e12, bandwidth=1.555e12),
        Card("H100", bf16=989e12, tf32=494e12, fp32=67e12, bandwidth=3.35e12),
        Card("RTX 4090", bf16=165e12, tf32=82.6e12, fp32=82.6e12, bandwidth=1.008e12),
        Card("RTX 3090", bf16=71e12, tf32=35.6e12, fp32=35.6e12, bandwidth=0.936e12),
        Card("L4", bf16=121e12, tf32=60e12, fp32=30.3e12, bandwidth=0.300e12),
    )
}


def estimate(operations: Iterable[Operation], card: Card, precision: str, captured: bool) -> float:
    """Seconds that operations recorded in float32 take. precision: "bf16" (autocast) or "fp32".

    Eagerly, the host issues one operation after the other without waiting, and the card works through them in
    order; captured, as a CUDA graph, nothing waits for the host.

    Not modelled: autocast's casts as launches of their own, which an eager estimate in bf16 misses; kernels that
    compilation fuses, which makes a captured and compiled update faster than this; caches, which do the same.
    The bytes count as recorded in bf16 too: what a convolution saves by reading half, casts to and from float32
    around it take back.
    """
    issued = finished = 0.0
    for operation in operations:
        if not captured:
            issued += card.launch
        finished = max(finished, issued) + card.work(operation, precision) + card.replay
    return finished


class Published(NamedTuple):
    """seconds and launches of an update of the published code, and the precision that it ran in"""

    seconds: float
    launches: int
    precision: str


# The published code, eager, on an A100: Crafter configuration, batches of 32 × 21, 32 × 21, and 86 × 15 imagined steps.
PUBLISHED = {
    "tokenizer": Published(0.270, 1_831, "bf16"),
    "dynamics": Published(0.096, 1_443, "bf16"),
    "policy": Published(0.710, 13_854, "fp32"),
}


def check_against_published(recordings: Mapping[str, list[Operation]]) -> dict[str, tuple[float, float]]:
    """Part -> seconds of an update of the published code on an A100, estimated and measured.

    recordings: part -> our operations, of the published configuration; the host's time is scaled to the published
    number of launches.

    This is no independent test: LAUNCH and both efficiencies, round numbers, were calibrated on these three
    measurements. The error that remains: tokenizer +5 %, dynamics −7 %, policy −1 %. On another card, or host,
    expect a factor of 1.5 either way.
    """
    card, seconds = CARDS["A100"], {}
    for part, operations in recordings.items():
        published = PUBLISHED[part]
        scaled = dataclasses.replace(card, launch=card.launch * published.launches / len(operations))
        seconds[part] = (estimate(operations, scaled, published.precision, captured=False), published.seconds)
    return seconds
