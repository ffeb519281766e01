"""Updates, and the proof without a GPU that each can be captured as a CUDA graph."""

from __future__ import annotations

import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from agent.agent import Agent
from agent.config import PartConfig, TrainConfig
from agent.execution import Execution, choose_execution
from agent.segment import Segment
from agent.training.components import make_learner
from agent.training.learner import Averages, Learner, NonFinite
from envs.errors import BadInput
from tests.agent.conftest import AGENTS, SPACES, config_of, random_segment
from tests.agent.quantizers.test_quantizer_kinds import ALL as QUANTIZERS

EAGER = Execution("eager", bf16=False)
PARTS = {"tokenizer": 6, "dynamics": 6, "policy": 3}  # name -> steps of its segments


def agent_with(name: str, quantizer: str | None = None) -> Agent:
    """It imagines two steps: of more, more is traced and compiled, of the same."""
    config = config_of(*AGENTS[name])
    config.actor_critic.horizon = 2
    if quantizer:
        config.tokenizer.quantizer = QUANTIZERS[quantizer]
    return Agent(config, SPACES).eval()


def learner_of(agent: Agent, part: str, execution: Execution = EAGER) -> Learner:
    return make_learner(agent, TrainConfig(policy=PartConfig()), part, execution)


def tensors_of(segment: Segment) -> list[torch.Tensor]:
    return [getattr(segment, name) for name in Segment.__dataclass_fields__]


# DART's tokenizer and dynamics are IRIS's.
DIFFERENT = [
    (name, part) for name in AGENTS for part in PARTS if name != "dart" or part == "policy"
]
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
every = pytest.mark.parametrize(("name", "part"), DIFFERENT)


@pytest.mark.parametrize(
    ("name", "part", "quantizer"),
    [
        *((name, part, None) for name, part in DIFFERENT),
        *(("delta_iris", "tokenizer", quantizer) for quantizer in QUANTIZERS),
    ],
)
def test_an_update_finishes_on_the_meta_device(name, part, quantizer):
    """There, reading a value back raises: .item(), .cpu(), bool(tensor), boolean indexing."""
    with torch.device("meta"):
        agent = agent_with(name, quantizer)
    metrics = learner_of(agent, part).update(random_segment(4, PARTS[part]).to("meta"))
    assert all(value.is_meta for value in metrics.values())


RECORDED = [
    ("delta_iris", "tokenizer", None), ("delta_iris", "dynamics", None), ("iris", "tokenizer", None), ("iris", "dynamics", None),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("delta_iris", "policy", None), ("dart", "policy", None), ("delta_iris", "tokenizer", "vq, rotation, product"),
        ("delta_light", "tokenizer", None), ("delta_light", "dynamics", None), ("delta_light", "policy", None),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("name", "part", "quantizer"), RECORDED)
def test_a_recorded_update_replays_bit_equal(name, part, quantizer):
    """Recorded once, it replays on other inputs without the Python; every tensor agrees."""
    torch.manual_seed(0)
    agent = agent_with(name, quantizer)
    learner = learner_of(agent, part)
    learner.update(random_segment(4, PARTS[part], seed=1))
    twin = copy.deepcopy(SimpleNamespace(agent=agent, learner=learner))

    def update(*tensors):
        return learner.update(Segment(*tensors, batch_size=list(tensors[-1].shape)))

    segments = [random_segment(4, PARTS[part], seed=seed) for seed in range(2, 7)]
    torch.manual_seed(7)
    recorded = make_fx(update)(*tensors_of(segments[0]))
    replayed = [recorded(*tensors_of(s)) for s in segments[1:]]
    torch.manual_seed(7)
    eager = [twin.learner.update(s) for s in segments][1:]
    pairs = [*zip(replayed, eager), (agent.state_dict(), twin.agent.state_dict())]
    # What older ones record is rounded otherwise.
    tolerance = 0.0 if torch.__version__ >= "2.13" else 1e-3
    for ours, theirs in [*pairs, (learner.state_dict(), twin.learner.state_dict())]:
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=tolerance, atol=tolerance)


def losses_of(
    name: str, part: str, execution: Execution, device: str = "cpu"
) -> list[dict[str, float]]:
    """Of ten updates from the same start, with the same segments and random numbers."""
    torch.manual_seed(0)
    learner = learner_of(agent_with(name).to(device), part, execution)
    torch.manual_seed(7)
    # Else compiled code draws its numbers in its own order.
    with torch._inductor.config.patch(fallback_random=True):
        segments = (random_segment(4, PARTS[part], seed=seed).to(device) for seed in range(10))
        updates = [learner.update(segment) for segment in segments]
    return [{name: value.item() for name, value in metrics.items()} for metrics in updates]


def check_compiled(name: str, part: str, device: str) -> None:
    modes = (Execution("compiled"), Execution("eager"))
    for ours, theirs in zip(*(losses_of(name, part, mode, device) for mode in modes), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(p, marks=pytest.mark.slow if p == "tokenizer" else pytest.mark.long)
        for p in PARTS
    ],
)
def test_compiled_updates_equal_eager_ones(part):
    """Of the others: tests/agent/test_agents.py."""
    check_compiled("delta_iris", part, "cpu")


@pytest.mark.cuda
@on_cuda
@every
def test_compiled_updates_equal_eager_ones_on_a_device(name, part):
    check_compiled(name, part, "cuda")


@pytest.mark.cuda
@on_cuda
@pytest.mark.parametrize("bf16", [False, True])
@every
def test_captured_updates_equal_compiled_ones(name, part, bf16, monkeypatch):
    """To the last bit, where sums are not left to the order in which threads arrive."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        captured, compiled = (
            losses_of(name, part, Execution(mode, bf16), "cuda")
            for mode in ("captured", "compiled")
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert captured == compiled


WHOLE = [
    ("delta_iris", "tokenizer", True), ("delta_iris", "dynamics", True),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("delta_light", "tokenizer", True), ("delta_light", "dynamics", True), ("iris", "tokenizer", True),
        ("delta_iris", "policy", False), ("dart", "policy", True),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("name", "part", "bf16"), WHOLE)
def test_the_compiler_takes_an_update_whole_and_once(name, part, bf16):
    """No graph break (fullgraph), and after the first updates nothing is compiled anew.

    A rollout of IRIS: tests/agent/world_models/test_worlds.py.
    """
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    learner = learner_of(agent_with(name), part, Execution("eager", bf16))
    learner.forward = torch.compile(learner.forward, fullgraph=True, dynamic=False, backend=backend)
    for seed in range(2):
        learner.update(random_segment(4, PARTS[part], seed=seed))
    assert graphs
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(2, 5):
            learner.update(random_segment(4, PARTS[part], seed=seed))


@every
def test_an_update_in_bf16(name, part):
    """Near float32's, and every weight that learns there learns here."""
    losses, trained = [], []
    for bf16 in (False, True):
        torch.manual_seed(0)
        learner = learner_of(agent_with(name), part, Execution("eager", bf16))
        torch.manual_seed(1)
        losses.append(learner.update(random_segment(4, PARTS[part]))["loss"].item())
        gradients = {name: p.grad for p, name in learner.names.items()}
        trained.append({name for name, g in gradients.items() if g is not None and g.any()})
        assert all(p.dtype == torch.float32 for p in learner.names)
    assert trained[0] == trained[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[1] != losses[0]


def test_modes_and_precisions(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_execution("auto", "fp32", cpu, flop=1e12) == ("eager", False)
    assert choose_execution("auto", "fp32", cpu, flop=1e18) == ("compiled", False)
    monkeypatch.setattr("agent.execution.has_compiler", lambda device: True)
    assert choose_execution("auto", "bf16", cuda, flop=1.0) == ("captured", True)
    monkeypatch.setattr("agent.execution.has_compiler", lambda device: False)
    assert choose_execution("auto", "fp32", cpu, flop=1e18) == ("eager", False)
    with pytest.raises(BadInput, match="learner.mode=compiled needs g"):
        choose_execution("compiled", "fp32", cpu, flop=1e18)
    monkeypatch.undo()
    assert choose_execution("compiled", "bf16", cpu, flop=1.0) == ("compiled", True)
    with pytest.raises(BadInput, match="learner.mode=captured .* device=cpu"):
        choose_execution("captured", "fp32", cpu, flop=1.0)


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.items()}


def test_loading_keeps_tensors_in_place(agent):
    """A CUDA graph has recorded where they are."""
    learner = learner_of(agent.eval(), "dynamics")
    learner.update(random_segment(4, 6))
    saved = copied(learner.state_dict())
    addresses = {name: value.data_ptr() for name, value in learner.state_dict().items()}
    learner.update(random_segment(4, 6, seed=1))
    learner.load_state_dict(saved)
    assert all(torch.equal(value, saved[name]) for name, value in learner.state_dict().items())
    assert addresses == {name: value.data_ptr() for name, value in learner.state_dict().items()}


def test_the_target_moves_before_the_optimizer_steps(agent):
    """As published: after the first update the target still stands where both started."""
    start, target = copied(agent.policy.state_dict()), agent.target_policy.state_dict()
    learner = learner_of(agent.eval(), "policy")
    learner.update(random_segment(4, 3))
    for name, value in target.items():
        torch.testing.assert_close(value, start[name], rtol=0, atol=1e-7)
    after_one = copied(agent.policy.state_dict())
    learner.update(random_segment(4, 3))
    for name, value in target.items():
        moved = start[name] + 0.005 * (after_one[name] - start[name])
        torch.testing.assert_close(value, moved, rtol=0, atol=1e-7)


def test_the_learning_rate_is_that_of_the_next_update(agent):
    learner, before = learner_of(agent.eval(), "dynamics"), copied(agent.dynamics.state_dict())

    def moved_by(rate: float) -> float:
        learner.set_learning_rate(rate)
        learner.update(random_segment(4, 6))
        now = agent.dynamics.state_dict()
        return max((value - before[name]).abs().max().item() for name, value in now.items())

    assert moved_by(0.0) == 0
    assert 0.5e-3 < moved_by(1e-3) < 2e-3  # AdamW's first steps are about as long as the rate


def test_only_the_weights_of_linear_layers_decay(agent):
    learner = learner_of(agent, "dynamics")
    decayed = {learner.names[p] for p in learner.optimizer.param_groups[0]["params"]}
    assert "transformer.blocks.0.expand.weight" in decayed
    others = ("bias", "norm", "embedding", "positions", "conv")
    assert not [name for name in decayed if any(other in name for other in others)]


def test_averages_go_on_and_name_what_is_not_finite():
    averages = Averages()
    for value in (1.0, 2.0):
        averages.add({"loss": torch.tensor(value)})
    assert averages.read() == {"loss": 1.5}
    averages = Averages(json.loads(json.dumps(averages.state_dict())))
    averages.add({"loss": torch.tensor(0.1)})
    assert averages.read() == {"loss": (3 + float(torch.tensor(0.1))) / 3}

    for loss, end in ((1.0, 2.0), (math.nan, math.nan), (3.0, 4.0)):
        terms = {"loss": loss, "end": end, "gradient_norm": loss}
        averages.add({name: torch.tensor(value) for name, value in terms.items()})
    with pytest.raises(NonFinite, match="end is nan") as error:
        averages.read()
    assert error.value.ago == 1


@pytest.mark.parametrize(
    ("part", "value"), [*((part, math.nan) for part in PARTS), ("policy", -math.inf)]
)
def test_what_is_not_finite_does_not_reach_weights(agent, part, value):
    """Nor the optimizer's state, nor the codebook: as if the update had not been."""
    learner, segment = learner_of(agent.eval(), part), random_segment(4, 6)
    learner.update(segment)
    kept = copied(agent.state_dict() | learner.state_dict())
    loss = learner.loss
    learner.loss = lambda s: {name: term * value for name, term in loss(s).items()}
    assert not learner.update(segment)["gradient_norm"].isfinite()
    for name, tensor in (agent.state_dict() | learner.state_dict()).items():
        # These follow what was read, and the weights.
        if not name.startswith(("tokenizer.quantizer", "target_policy")):
            assert torch.equal(tensor, kept[name]), name
        assert tensor.isfinite().all(), name
