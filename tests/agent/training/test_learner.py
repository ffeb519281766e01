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
from agent.config import OptimizerConfig
from agent.execution import Execution, choose_execution
from agent.segment import Segment
from agent.training.learner import Averages, Learner, NonFinite
from envs.errors import BadInput
from tests.agent.conftest import AGENTS, SPACES, config_of, random_segment
from tests.agent.quantizers.test_quantizer_kinds import ALL as QUANTIZERS

EAGER = Execution("eager", bf16=False)
PARTS = {"tokenizer": 6, "dynamics": 6, "policy": 3}  # name -> steps of its segments


def make_learner(agent: Agent, part: str, execution: Execution = EAGER) -> Learner:
    before_step = agent.update_target if part == "policy" else None
    return Learner(
        getattr(agent, part),
        getattr(agent, f"{part}_loss"),
        OptimizerConfig(),
        before_step,
        execution,
    )


def agent_with(name: str, quantizer: str | None = None) -> Agent:
    config = config_of(*AGENTS[name])
    if quantizer:
        config.tokenizer.quantizer = QUANTIZERS[quantizer]
    return Agent(config, SPACES).eval()


def agent_of_two_steps(name: str, quantizer: str | None = None) -> Agent:
    """Imagined ones: of more, more is traced and compiled, of the same."""
    agent = agent_with(name, quantizer)
    agent.config.actor_critic.horizon = 2
    return agent


# DART's tokenizer and dynamics are IRIS's.
DIFFERENT = [
    (name, part) for name in AGENTS for part in PARTS if name != "dart" or part == "policy"
]
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
    metrics = make_learner(agent, part).update(random_segment(4, PARTS[part]).to("meta"))
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
    agent = agent_of_two_steps(name, quantizer)
    learner = make_learner(agent, part)
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
    agent = agent_of_two_steps(name).to(device)
    learner = make_learner(agent, part, execution)
    torch.manual_seed(7)
    with torch._inductor.config.patch(
        fallback_random=True
    ):  # else compiled code draws its numbers in its own order
        updates = [
            learner.update(random_segment(4, PARTS[part], seed=seed).to(device))
            for seed in range(10)
        ]
    return [{name: value.item() for name, value in metrics.items()} for metrics in updates]


def check_close(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs) == 10
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_compiled_updates_equal_eager_ones(part):
    """Of the others: tests/agent/test_agents.py."""
    ours, theirs = (
        losses_of("delta_iris", part, Execution(mode)) for mode in ("compiled", "eager")
    )
    check_close(ours, theirs)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every
def test_compiled_updates_equal_eager_ones_on_a_device(name, part):
    check_close(*(losses_of(name, part, Execution(mode), "cuda") for mode in ("compiled", "eager")))


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("bf16", [False, True])
@every
def test_captured_updates_equal_compiled_ones(name, part, bf16, deterministic):
    """To the last bit, where sums are not left to the order in which threads arrive."""
    captured, compiled = (
        losses_of(name, part, Execution(mode, bf16), "cuda") for mode in ("captured", "compiled")
    )
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

    Of frames' dynamics: tests/agent/world_models/test_frame_dynamics.py.
    """
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    learner = make_learner(agent_of_two_steps(name), part, Execution("eager", bf16))
    learner.forward = torch.compile(learner.forward, fullgraph=True, dynamic=False, backend=backend)
    for seed in range(2):
        learner.update(random_segment(4, PARTS[part], seed=seed))
    assert graphs
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(2, 5):
            learner.update(random_segment(4, PARTS[part], seed=seed))


@every
def test_an_update_in_bf16(name, part):
    """Finite, near float32's, and every weight that learns there learns here."""
    metrics, trained = [], []
    for bf16 in (False, True):
        torch.manual_seed(0)
        agent = agent_with(name)
        learner = make_learner(agent, part, Execution("eager", bf16))
        torch.manual_seed(1)
        metrics.append(
            {
                name: value.item()
                for name, value in learner.update(random_segment(4, PARTS[part])).items()
            }
        )
        trained.append(
            {name for p, name in learner.names.items() if p.grad is not None and p.grad.any()}
        )
        assert all(p.dtype == torch.float32 for p in learner.names)
    assert trained[0] == trained[1]
    assert metrics[1]["loss"] == pytest.approx(metrics[0]["loss"], rel=0.05)
    assert metrics[1]["loss"] != metrics[0]["loss"]


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


def test_loading_keeps_tensors_in_place(agent):
    """A CUDA graph has recorded where they are."""
    learner = make_learner(agent.eval(), "dynamics")
    learner.update(random_segment(4, 6))
    saved = {name: value.clone() for name, value in learner.state_dict().items()}
    places = {name: value.data_ptr() for name, value in learner.state_dict().items()}
    learner.update(random_segment(4, 6, seed=1))
    learner.load_state_dict(saved)
    assert all(torch.equal(value, saved[name]) for name, value in learner.state_dict().items())
    assert places == {name: value.data_ptr() for name, value in learner.state_dict().items()}


def tensors_of(segment: Segment) -> list[torch.Tensor]:
    return [getattr(segment, name) for name in Segment.__dataclass_fields__]


def test_the_target_moves_before_the_optimizer_steps(agent):
    """As published: after the first update the target still stands where both started."""
    start = copy.deepcopy(agent.policy.state_dict())
    learner = make_learner(agent.eval(), "policy")
    learner.update(random_segment(4, 3))
    assert all(
        torch.allclose(v, start[k], atol=1e-7) for k, v in agent.target_policy.state_dict().items()
    )
    after_one = copy.deepcopy(agent.policy.state_dict())
    learner.update(random_segment(4, 3))
    for name, value in agent.target_policy.state_dict().items():
        torch.testing.assert_close(
            value, start[name] + 0.005 * (after_one[name] - start[name]), rtol=0, atol=1e-7
        )


def test_the_learning_rate_is_that_of_the_next_update(agent):
    learner, before = (
        make_learner(agent.eval(), "dynamics"),
        copy.deepcopy(agent.dynamics.state_dict()),
    )
    learner.set_learning_rate(0.0)
    learner.update(random_segment(4, 6))
    assert all(
        torch.equal(value, before[name]) for name, value in agent.dynamics.state_dict().items()
    )
    learner.set_learning_rate(1e-3)
    learner.update(random_segment(4, 6))
    moved = max(
        (value - before[name]).abs().max().item()
        for name, value in agent.dynamics.state_dict().items()
    )
    assert 0.5e-3 < moved < 2e-3  # AdamW's first steps are about as long as the rate


def test_only_the_weights_of_linear_layers_decay(agent):
    learner = make_learner(agent, "dynamics")
    decayed = {learner.names[p] for p in learner.optimizer.param_groups[0]["params"]}
    assert "transformer.blocks.0.expand.weight" in decayed
    assert not {
        n
        for n in decayed
        if "bias" in n or "norm" in n or "embedding" in n or "positions" in n or "conv" in n
    }


def test_averages_name_what_is_not_finite():
    averages = Averages()
    for loss, end in ((1.0, 2.0), (float("nan"), float("nan")), (3.0, 4.0)):
        averages.add(
            {
                "loss": torch.tensor(loss),
                "end": torch.tensor(end),
                "gradient_norm": torch.tensor(loss),
            }
        )
    with pytest.raises(NonFinite, match="end is nan") as error:
        averages.read()
    assert error.value.ago == 1


def test_averages_leave_out_what_is_not_finite():
    averages = Averages(skips=2)
    for value in (1.0, float("inf"), 2.0):
        averages.add({"loss": torch.tensor(value)})
    assert averages.read() == {"loss": 1.5} and averages.skipped == 1
    resumed = Averages(2, json.loads(json.dumps(averages.state_dict())))
    for a in (averages, resumed):
        a.add({"loss": torch.tensor(0.1)})
        assert a.read() == {"loss": (3 + float(torch.tensor(0.1))) / 3}
        for _ in range(2):
            a.add({"loss": torch.tensor(float("nan"))})
        with pytest.raises(NonFinite, match="loss is nan"):
            a.read()


@pytest.mark.parametrize(
    ("part", "value"), [*((part, math.nan) for part in PARTS), ("policy", -math.inf)]
)
def test_what_is_not_finite_does_not_reach_weights(agent, part, value):
    """Nor the optimizer's state, nor the codebook: as if the update had not been."""
    learner = make_learner(agent.eval(), part)
    segment = random_segment(4, 6)
    learner.update(segment)
    kept = {
        name: tensor.clone() for name, tensor in (agent.state_dict() | learner.state_dict()).items()
    }
    loss = learner.loss
    learner.loss = lambda s: {name: term * value for name, term in loss(s).items()}
    assert not learner.update(segment)["gradient_norm"].isfinite()
    for name, tensor in (agent.state_dict() | learner.state_dict()).items():
        if not name.startswith(
            ("tokenizer.quantizer", "target_policy")
        ):  # which follow what was read, and the weights
            assert torch.equal(tensor, kept[name]), name
        assert tensor.isfinite().all(), name
