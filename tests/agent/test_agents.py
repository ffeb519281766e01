"""Every policy in every world: what learns, what is seen, what is never computed."""

from __future__ import annotations

import pytest
import torch

from agent.actor_critic import policy_loss
from agent.agent import Agent
from agent.config import ActorCriticConfig
from agent.config.policies import VitPolicyConfig
from agent.execution import Execution
from agent.imagination import dream, imagine
from agent.nets.heads import greedy
from agent.runs.api import configure
from agent.training.components import PARTS, make_learner
from agent.training.costs import noise
from envs.errors import BadInput
from envs.spaces import Spaces
from tests.agent.conftest import POLICIES, SPACES, config_of, random_segment
from tests.tiny import OF_AGENT

EXPERIMENTS = (
    "crafter", "crafter_1m", "crafter_laptop", "crafter_overnight", "crafter_gpu", "crafter_quick",
    "atari100k", "atari_quick", "catch", "tiny", "small", "base",
)  # fmt: skip
every = pytest.mark.parametrize(
    ("world", "policy"), [(w, p) for w in ("delta", "delta_light", "frame") for p in POLICIES]
)


def make(world: str, policy: str) -> Agent:
    torch.manual_seed(0)
    return Agent(config_of(world, policy), SPACES).eval()


@every
def test_each_part_learns_and_no_other(world: str, policy: str) -> None:
    run = configure("experiment=catch")
    run.agent, run.policy.batch = config_of(world, policy), 3
    run.tokenizer.batch, run.tokenizer.steps = 2, 3
    run.dynamics.batch, run.dynamics.steps = 2, 4
    agent = make(world, policy)
    for part in PARTS:
        before = {name: x.clone() for name, x in agent.state_dict().items()}
        learner = make_learner(agent, run, part)
        for _ in range(2):  # the target moves towards the policy of the update before
            metrics = learner.update(noise(agent, run, part))
        assert all(value.isfinite() for value in metrics.values()), metrics
        after = agent.state_dict()
        changed = {name.split(".")[0] for name in after if not after[name].equal(before[name])}
        learns = {part, "target_policy"} if part == "policy" else {part}
        assert changed - {"policy_updates"} == learns


ABLATIONS = (  # docs/agents.md
    ("delta_iris", "agent.dynamics.i_token=false"),
    ("delta_iris", "agent.tokenizer.action=false"),
    ("delta_iris", "agent.tokenizer.tokens=16"),
    ("dart", "agent.policy.positions=false"),
    ("dart", "agent.policy.memory=false"),
    *((agent, "agent.actor_critic.lambda_=0.5") for agent in OF_AGENT),
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ablation"), ABLATIONS)
def test_the_papers_ablations_learn(name: str, ablation: str) -> None:
    """One line of configuration each; what is left learns, imagines and dreams."""
    config = configure(*OF_AGENT[name], ablation)
    torch.manual_seed(0)
    agent = Agent(config.agent, Spaces(3, 32, (3,)))
    for part in PARTS:
        before = [x.clone() for x in getattr(agent, part).parameters()]
        metrics = make_learner(agent, config, part).update(noise(agent, config, part))
        assert all(value.isfinite() for value in metrics.values()), metrics
        assert not all(map(torch.equal, before, getattr(agent, part).parameters()))
    frames, _ = dream(agent.world, noise(agent, config, "dynamics"), 2)
    assert frames.shape[1] == config.dynamics.steps - 2


@torch.no_grad()
@pytest.mark.parametrize("ablated", [False, True])
def test_what_the_delta_ablations_take_away(ablated: bool) -> None:
    """Without I-tokens the dynamics sees no frames; without actions the Δ-autoencoder sees none."""
    segment, other = random_segment(2, 3), random_segment(2, 3, seed=5)
    config = config_of("delta")
    config.dynamics.i_token = config.tokenizer.action = not ablated
    torch.manual_seed(0)
    agent, tokens = Agent(config, SPACES).eval(), torch.randint(16, (2, 2, 4))
    seen = [agent.dynamics(s.frames, segment.actions, tokens).tokens for s in (segment, other)]
    assert torch.equal(*seen) == ablated
    cells = torch.ones(2, 4, agent.tokenizer.from_code.out_features)
    frame, action, following = segment.frames[:, 0], segment.actions[:, 0], segment.frames[:, 1]
    actions = action, (action + 1) % 4
    decoded = [agent.tokenizer.reconstruct(frame, a, cells) for a in actions]
    encoded = [agent.tokenizer.encode_map(frame, a, following) for a in actions]
    assert torch.equal(*decoded) == torch.equal(*encoded) == ablated


@every
def test_it_acts_imagines_and_dreams(world: str, policy: str) -> None:
    """Beyond the context of the frame world, too; what a policy sees is what it would see there."""
    agent, segment = make(world, policy), random_segment(2, 3)
    actions, state = agent.act(segment.frames[:, 0], agent.policy.initial_state(2))
    assert actions.shape == (2, 2) and actions.dtype == torch.int64
    assert state.shape == agent.policy.initial_state(2).shape and state.any()
    assert not state.requires_grad
    past = agent.world.observe(segment.frames[:, :-1])
    state = agent.policy.burn_in(past)
    trajectory = imagine(agent.world, agent.policy, segment, state, 5, greedy)
    seen = SPACES.frame_shape if policy == "cnn_lstm" else agent.world.code_shape
    assert trajectory.observations.shape == (2, 6, *seen)
    assert trajectory.observations.dtype == past.dtype
    assert torch.equal(trajectory.observations[:, 0], agent.world.observe(segment.frames[:, -1]))
    for t in range(5):
        logits, state = agent.policy.act(trajectory.observations[:, t], state)
        assert torch.equal(logits.argmax(dim=-1), trajectory.actions[:, t])
    frames, tokens = dream(agent.world, random_segment(2, 8), 3)
    assert frames.shape == (2, 5, *SPACES.frame_shape)
    assert tokens.shape == (2, 5, agent.tokenizer.tokens)
    assert agent.tokenizer.reconstruction(segment).shape == (2, 2, *SPACES.frame_shape)


def test_who_reads_codes_never_runs_the_decoder() -> None:
    agent, calls, segment = make("frame", "vit"), [], random_segment(2, 3)
    agent.tokenizer.decoder.register_forward_hook(lambda *_: calls.append(1))
    agent.policy_loss(segment)
    agent.act(segment.frames[:, 0], agent.policy.initial_state(2))
    assert not calls


def test_acting_samples_by_default(agent: Agent) -> None:
    frames = random_segment(1, 2).frames[:, 0].expand(200, -1, -1, -1)
    state = agent.policy.initial_state(200)
    torch.manual_seed(0)
    assert len(agent.act(frames, state)[0].unique(dim=0)) > 1
    assert len(agent.act(frames, state, greedy)[0].unique(dim=0)) == 1


def test_the_target_starts_as_a_copy_that_is_not_trained(agent: Agent) -> None:
    for p, target in zip(agent.policy.parameters(), agent.target_policy.parameters()):
        assert torch.equal(p, target) and p.requires_grad and not target.requires_grad
        assert p.data_ptr() != target.data_ptr()


def test_the_number_of_parameters_and_the_device(agent: Agent) -> None:
    counts = agent.num_parameters()
    assert set(counts) == set(PARTS)
    assert sum(counts.values()) == sum(p.numel() for p in agent.parameters())
    assert counts["policy"] == 2 * sum(p.numel() for p in agent.policy.parameters())
    with torch.device("meta"):
        assert Agent(config_of("delta"), SPACES).device == torch.device("meta")


@pytest.mark.parametrize(("burn_in", "horizon"), [(1, 8), (8, 1)])
def test_burn_in_and_horizon_may_fill_the_context(burn_in: int, horizon: int) -> None:
    """To the last position and not beyond it: nothing is forgotten on the way."""
    config = config_of("delta")
    config.actor_critic.burn_in, config.actor_critic.horizon = burn_in, horizon
    world = Agent(config, SPACES).eval().world
    state, positions = world.start(random_segment(2, 9)[:, :burn_in]), []
    for _ in range(horizon):
        _, state = world.step(state, torch.zeros(2, 2, dtype=torch.int64))
        positions.append(state.position)
    assert positions == sorted(positions)
    assert positions[-1] == 8 * 6 - 1  # the last Δ-token is pending


@pytest.mark.long
@pytest.mark.parametrize(
    ("world", "policy"), [("frame", "vit"), ("delta", "code_lstm"), ("frame", "cnn_lstm")]
)
def test_compiled_as_eagerly(world: str, policy: str) -> None:
    run = configure("experiment=catch")
    run.agent, run.policy.batch = config_of(world, policy), 3
    if policy == "vit":
        run.agent.policy = VitPolicyConfig(layers=1, heads=2, width=16, mlp=16, dropout=0.0)
    results = []
    for mode in ("eager", "compiled"):
        torch.manual_seed(0)
        agent = Agent(run.agent, SPACES).eval()
        parts = agent.policy, agent.target_policy, agent.world
        agent.policy_loss = lambda segment, parts=parts: policy_loss(  # what is drawn would differ
            *parts, segment, run.agent.actor_critic, greedy
        )
        learner = make_learner(agent, run, "policy", Execution(mode))
        results.append([learner.update(random_segment(3, 3, seed=seed)) for seed in range(3)])
    for ours, theirs in zip(*results):
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["delta_light", *OF_AGENT])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_agent_in_every_size(agent: str, experiment: str) -> None:
    for policy in POLICIES:
        config = configure(f"experiment={experiment}", f"agent={agent}", f"agent/policy={policy}")
        config.check()
        assert config.agent.policy.kind == policy
        size = config.env.size or (32 if experiment == "catch" else 64)
        with torch.device("meta"):
            Agent(config.agent, Spaces(3, size, (5,)))


@pytest.mark.parametrize("experiment", ["tiny", "crafter_quick"])
def test_shared_features_tell_frames_apart(experiment: str) -> None:
    config = configure(f"experiment={experiment}", "agent=delta_light").agent
    agent, frames = Agent(config, Spaces(3, 32, (5,))).eval(), random_segment(2, 2, size=32).frames
    i_tokens = agent.dynamics.embed_frames(agent.world.dynamics_frames(frames))
    assert torch.pdist(i_tokens.flatten(0, 1)).min() > 1


def test_what_darts_paper_prints() -> None:
    """512 codes of 512, 16 tokens, 10 layers of 256, a policy of 6 layers of 512."""
    dart = configure("agent=dart").agent
    book, transformer, policy = dart.tokenizer.quantizer, dart.dynamics.transformer, dart.policy
    assert (book.size, book.dim) == (512, 512)
    assert (transformer.layers, transformer.heads, transformer.width) == (10, 4, 256)
    assert (policy.layers, policy.heads, policy.width, policy.dropout) == (6, 8, 512, 0.2)
    assert dart.actor_critic == ActorCriticConfig(horizon=20, discount=0.995)
    with torch.device("meta"):
        agent = Agent(dart, Spaces(3, 64, (17,)))
    assert agent.tokenizer.tokens == 16 and agent.dynamics.positions_per_step == 17
    assert agent.policy.positions.shape == (18, 512)  # CLS, 16 codes, MEM
    assert isinstance(agent.policy.project, torch.nn.Identity)


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match="agent/tokenizer=frame and agent/dynamics=delta"):
        Agent(configure("agent/tokenizer=frame").agent, SPACES)
    config = config_of("delta", "vit")
    config.dynamics.i_token = False
    with pytest.raises(BadInput, match="i_token=false .* choose agent/policy=cnn_lstm"):
        Agent(config, SPACES)
    config.actor_critic.burn_in, config.actor_critic.horizon = 4, 6
    with pytest.raises(BadInput, match="burn_in=4 and horizon=6 need a context of 9 steps and"):
        Agent(config, SPACES)


def test_keys_of_another_kind() -> None:
    belongs = "belongs to agent/tokenizer=delta or agent/tokenizer=delta_light; choose that too"
    with pytest.raises(BadInput, match=f"^agent.tokenizer.frame_latent {belongs}"):
        configure("agent=dart", "agent.tokenizer.frame_latent=3")
    assert configure("agent.policy.kind=vit").agent == configure("agent/policy=vit").agent
    with pytest.raises(BadInput, match="agent.policy.kind=wit is not known"):
        configure("agent.policy.kind=wit")
    names = "dart, delta_iris, delta_light, delta_residual, iris"
    with pytest.raises(BadInput, match=f"agent=dort does not exist; choose one of {names}"):
        configure("agent=dort")
