import pytest
import torch

from agent.training.memory import Held


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_kept_for_the_backward_pass(device: str) -> None:
    """Each storage once, the parameters aside, and nothing of what has no gradient."""
    layer = torch.nn.Linear(4, 5, device=device)
    x = torch.ones(3, 4, device=device, requires_grad=True)
    with Held() as held:
        y = layer(x).exp()  # keeps x, and its own result
        y.view(15).square()  # keeps the same result, by another view
        with torch.no_grad():
            layer(x).exp()
    assert held.bytes == 4 * (12 + 15)


def test_counting_keeps_nothing_alive() -> None:
    """A graph that stays alive holds its memory and its stream, which breaks a capture."""
    weight = torch.ones(3, requires_grad=True)
    with Held():
        y = weight.exp()
    # The one node of this weight, as long as a graph holds it.
    y.grad_fn.next_functions[0][0].metadata["here"] = True
    del y
    assert "here" not in weight.exp().grad_fn.next_functions[0][0].metadata
