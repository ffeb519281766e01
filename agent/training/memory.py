"""The memory that an update keeps between its forward and its backward pass."""

from __future__ import annotations

from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Parameter


class Held(saved_tensors_hooks):
    """Counts, as a context, what forward passes keep for their backward passes, parameters aside.

    It works on any device, meta too, and for compiled code.
    """

    def __init__(self) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        self.storages: dict[int, UntypedStorage] = {}

    def __enter__(self) -> Held:  # type: ignore[override]  # torch's own returns nothing
        super().__enter__()
        return self

    @property
    def bytes(self) -> int:
        """Of all that was kept so far, each storage once."""
        return sum(storage.nbytes() for storage in self.storages.values())

    def _keep(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, Parameter) and not isinstance(tensor._base, Parameter):
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = storage
        return tensor.detach()  # an operation's result, kept as it is, would keep the operation
