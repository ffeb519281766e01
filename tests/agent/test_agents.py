"""Every policy in every world: what learns, what is seen, what is never computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agent.actor_critic import policy_loss
from agent.agent import Agent
from agent.config import ActorCriticConfig
from agent.config.policies import VitPolicyConfig
from agent.execution import Execution
from agent.imagination import burn_in, dream, imagine
from agent.nets.heads import greedy
from agent.runs.api import configure
from agent.training.components import PARTS, make_learner, noise
from envs.errors import BadInput
from envs.spaces import Spaces
from tests.agent.conftest import POLICIES, SPACES, config_of, random_segment
from tests.tiny import OF_AGENT

EXPERIMENTS = (
    "crafter", "crafter_1m", "crafter_laptop", "crafter_overnight", "crafter_gpu", "crafter_quick",
    "atari100k", "atari_quick", "catch", "tiny", "small", "base",
)  # fmt: skip


def make(world: str, policy: str) -> Agent:
    torch.manual_seed(0)
    return Agent(config_of(world, policy), SPACES).eval()


every = pytest.mark.parametrize(
    ("world", "policy"), [(w, p) for w in ("delta", "delta_light", "frame") for p in POLICIES]
)


@every
def test_each_part_learns_and_no_other(world: str, policy: str) -> None:
    run = configure("experiment=catch")
    (
        run.agent,
        run.policy.batch,
        run.tokenizer.batch,
        run.dynamics.batch,
        run.tokenizer.steps,
        run.dynamics.steps,
    ) = config_of(world, policy), 3, 2, 2, 3, 4
    agent = make(world, policy)
    counters = {"policy_updates"}
    for part in PARTS:
        before = {name: x.clone() for name, x in agent.state_dict().items()}
        learner = make_learner(agent, run, part)
        for _ in range(2):  # the target moves towards the policy of the update before
            metrics = learner.update(noise(agent, run, part))
        assert all(value.isfinite() for value in metrics.values()), metrics
        changed = {
            name.split(".")[0]
            for name, x in agent.state_dict().items()
            if not torch.equal(x, before[name])
        }
        assert changed - counters == ({part, "target_policy"} if part == "policy" else {part})


ABLATIONS = (  # docs/agents.md
    ("delta_iris", "agent.dynamics.i_token=false"),
    ("delta_iris", "agent.tokenizer.action=false"),
    *(("delta_iris", f"agent.tokenizer.tokens={tokens}") for tokens in (1, 2, 4, 8, 16)),
    ("dart", "agent.policy.positions=false"),
    ("dart", "agent.policy.memory=false"),
    *(
        (agent, f"agent.actor_critic.{change}")
        for agent in OF_AGENT
        for change in ("lambda_=0.5", "horizon=2")
    ),
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
        assert any(
            not torch.equal(a, b)
            for a, b in zip(before, getattr(agent, part).parameters(), strict=True)
        )
    frames, _ = dream(agent.world, noise(agent, config, "dynamics"), 2)
    assert frames.shape[1] == config.dynamics.steps - 2


@torch.no_grad()
def test_what_the_delta_ablations_take_away() -> None:
    """Without I-tokens the dynamics sees no frames; without actions the Δ-autoencoder sees none."""
    segment, other = random_segment(2, 3), random_segment(2, 3, seed=5)
    tokens = torch.randint(16, (2, 2, 4))
    for ablated in (False, True):
        parts = config_of("delta", "cnn_lstm")
        parts.dynamics.i_token = parts.tokenizer.action = not ablated
        torch.manual_seed(0)
        agent = Agent(parts, SPACES).eval()
        seen = [agent.dynamics(s.frames, segment.actions, tokens).tokens for s in (segment, other)]
        assert torch.equal(*seen) == ablated
        actions = [segment.actions[:, 0], (segment.actions[:, 0] + 1) % 4]
        decoded = [
            agent.tokenizer.reconstruct(
                segment.frames[:, 0], a, torch.ones(2, 4, agent.tokenizer.from_code.out_features)
            )
            for a in actions
        ]
        encoded = [
            agent.tokenizer.encode_map(segment.frames[:, 0], a, segment.frames[:, 1])
            for a in actions
        ]
        assert torch.equal(*decoded) == torch.equal(*encoded) == ablated


def test_codes_need_an_i_token() -> None:
    with pytest.raises(BadInput, match="i_token=false .* choose agent/policy=cnn_lstm"):
        parts = config_of("delta", "vit")
        parts.dynamics.i_token = False
        Agent(parts, SPACES)


@every
def test_it_acts_imagines_and_dreams(world: str, policy: str) -> None:
    """Beyond the context of the frame world, too."""
    agent, segment = make(world, policy), random_segment(2, 3)
    actions, state = agent.act(segment.frames[:, 0], agent.policy.initial_state(2))
    assert (
        actions.shape == (2, 2)
        and state.shape == agent.policy.initial_state(2).shape
        and state.any()
    )
    past = agent.world.observe(segment.frames[:, :-1])
    trajectory = imagine(agent.world, agent.policy, segment, burn_in(agent.policy, past), 5)
    seen = SPACES.frame_shape if policy == "cnn_lstm" else agent.world.code_shape
    assert (
        trajectory.observations.shape == (2, 6, *seen)
        and trajectory.observations.dtype == past.dtype
    )
    assert torch.equal(trajectory.observations[:, 0], agent.world.observe(segment.frames[:, -1]))
    frames, tokens = dream(agent.world, random_segment(2, 8), 3)
    assert frames.shape == (2, 5, *SPACES.frame_shape) and tokens.shape == (
        2,
        5,
        agent.tokenizer.tokens,
    )
    assert agent.tokenizer.reconstruction(segment).shape == (2, 2, *SPACES.frame_shape)


@pytest.mark.parametrize("policy", ["code_lstm", "vit"])
def test_who_reads_codes_never_runs_the_decoder(policy: str) -> None:
    agent, calls = make("frame", policy), []
    agent.tokenizer.decoder.register_forward_hook(lambda *_: calls.append(1))
    agent.policy_loss(random_segment(2, 3))
    agent.act(random_segment(2, 3).frames[:, 0], agent.policy.initial_state(2))
    assert not calls
    agent.world.frames(agent.world.start(random_segment(2, 3)).latent)
    assert calls == [1]


@every
def test_imagination_sees_what_the_policy_would_see_of_its_pictures(
    world: str, policy: str
) -> None:
    """Fed with what imagination saw, act() goes through the same states and actions."""
    agent, segment = make(world, policy), random_segment(2, 3)
    past = agent.world.observe(segment.frames[:, :-1])
    state = burn_in(agent.policy, past)
    trajectory = imagine(agent.world, agent.policy, segment, state, 4, greedy)
    for t in range(4):
        logits, state = agent.policy.act(trajectory.observations[:, t], state)
        assert torch.equal(logits.argmax(dim=-1), trajectory.actions[:, t])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "policy"),
    [
        ("frame", "vit"),
        pytest.param("delta", "code_lstm", marks=pytest.mark.long),
        ("frame", "cnn_lstm"),
    ],  # no preset's
)
def test_compiled_as_eagerly(world: str, policy: str) -> None:
    run = configure("experiment=catch")
    run.agent, run.policy.batch = config_of(world, policy), 3
    run.agent.policy = (
        VitPolicyConfig(layers=1, heads=2, width=16, mlp=16, dropout=0.0)
        if policy == "vit"
        else run.agent.policy
    )
    results = []
    for mode in ("eager", "compiled"):
        torch.manual_seed(0)
        agent = Agent(run.agent, SPACES).eval()
        agent.policy_loss = lambda segment, agent=agent: policy_loss(  # what is drawn would differ
            agent.policy,
            agent.target_policy,
            agent.world,
            segment,
            agent.config.actor_critic,
            greedy,
        )
        learner = make_learner(agent, run, "policy", Execution(mode))
        results.append([learner.update(random_segment(3, 3, seed=seed)) for seed in range(3)])
    for ours, theirs in zip(*results, strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=name)


class TestOfConfigs:
    @pytest.mark.slow
    @pytest.mark.parametrize("agent", ["delta_light", *OF_AGENT])
    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_every_agent_in_every_size(self, agent: str, experiment: str) -> None:
        for policy in POLICIES:
            config = configure(
                f"experiment={experiment}", f"agent={agent}", f"agent/policy={policy}"
            )
            config.check()
            assert config.agent.policy.kind == policy
            with torch.device("meta"):
                Agent(
                    config.agent,
                    Spaces(3, config.env.size or (32 if experiment == "catch" else 64), (5,)),
                )

    @pytest.mark.parametrize("experiment", ["tiny", "catch", "crafter_quick"])
    def test_shared_features_tell_frames_apart(self, experiment: str) -> None:
        agent = Agent(
            configure(f"experiment={experiment}", "agent=delta_light").agent, Spaces(3, 32, (5,))
        ).eval()
        i_tokens = agent.dynamics.embed_frames(
            agent.world.dynamics_frames(random_segment(2, 2, size=32).frames)
        )
        assert torch.pdist(i_tokens.flatten(0, 1)).min() > 1

    def test_what_the_papers_print(self) -> None:
        """Facts of DART's paper.

        512 codes of 512, 16 tokens, 10 layers of 256, a policy of 6 layers of 512.
        """
        dart = configure("agent=dart").agent
        assert (dart.tokenizer.quantizer.size, dart.tokenizer.quantizer.dim) == (512, 512)
        assert (
            dart.dynamics.transformer.layers,
            dart.dynamics.transformer.heads,
            dart.dynamics.transformer.width,
        ) == (10, 4, 256)
        assert (dart.policy.layers, dart.policy.heads, dart.policy.width, dart.policy.dropout) == (
            6,
            8,
            512,
            0.2,
        )
        assert dart.actor_critic == ActorCriticConfig(horizon=20, discount=0.995)
        with torch.device("meta"):
            agent = Agent(dart, Spaces(3, 64, (17,)))
        assert agent.tokenizer.tokens == 16 and agent.dynamics.positions_per_step == 17
        assert agent.policy.positions.shape == (18, 512)  # CLS, 16 codes, MEM
        assert isinstance(agent.policy.project, torch.nn.Identity)

    def test_parts_that_do_not_fit(self) -> None:
        with pytest.raises(BadInput, match="agent/tokenizer=frame and agent/dynamics=delta"):
            Agent(configure("agent/tokenizer=frame").agent, SPACES)

    def test_keys_of_another_kind(self) -> None:
        with pytest.raises(
            BadInput,
            match="^agent.tokenizer.frame_latent belongs to agent/tokenizer=delta or "
            "agent/tokenizer=delta_light; choose that too, or leave the key out.$",
        ):
            configure("agent=dart", "agent.tokenizer.frame_latent=3")
        assert configure("agent.policy.kind=vit").agent == configure("agent/policy=vit").agent
        with pytest.raises(BadInput, match="agent.policy.kind=wit is not known"):
            configure("agent.policy.kind=wit")
        with pytest.raises(BadInput, match="Config group override must be a string or a list"):
            configure("agent=null")
        with pytest.raises(
            BadInput,
            match="agent=dort does not exist; choose one of dart, delta_iris, delta_light, "
            "delta_residual, iris",
        ):
            configure("agent=dort")


def brute_force(policy: torch.nn.Module, codes: Tensor, state: Tensor) -> Tensor:
    """One step by PyTorch's own pre-LN encoder, in float64."""
    c = policy.config
    layer = torch.nn.TransformerEncoderLayer(
        c.width, c.heads, c.mlp, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    x = (
        torch.cat(
            [policy.cls.expand(len(codes), 1, -1), policy.project(codes), state[:, None]], dim=1
        )
        + policy.positions
    )
    for block in policy.blocks:
        weights = {
            "self_attn.in_proj_weight": block.attention.query_key_value.weight, "self_attn.in_proj_bias": block.attention.query_key_value.bias,
            "self_attn.out_proj.weight": block.attention.out.weight, "self_attn.out_proj.bias": block.attention.out.bias,
            "linear1.weight": block.expand.weight, "linear1.bias": block.expand.bias,
            "linear2.weight": block.contract.weight, "linear2.bias": block.contract.bias,
            **{f"norm{i}.{n}": p for i, norm in ((1, block.norm1), (2, block.norm2)) for n, p in norm.named_parameters()},
        }  # fmt: skip
        layer.load_state_dict(weights)
        x = layer.double().train()(x)  # in evaluation it would take a fused path
    return torch.nn.functional.layer_norm(x[:, 0], (c.width,), policy.norm.weight, policy.norm.bias)


class TestVit:
    CODES = torch.randn(3, 5, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    STATE = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    @staticmethod
    def policy(**changes) -> torch.nn.Module:
        config = config_of("frame", "vit")
        config.policy = VitPolicyConfig(**{**vars(POLICIES["vit"]), **changes})
        torch.manual_seed(0)
        policy = Agent(config, SPACES).policy.double().eval()
        torch.nn.init.normal_(policy.critic.weight)
        return policy

    @torch.no_grad()
    def test_against_pytorchs_encoder(self) -> None:
        policy, state = self.policy(), self.STATE
        output, after = policy(self.CODES, state)
        for t in range(5):
            state = brute_force(policy, self.CODES[:, t], state)
            torch.testing.assert_close(output.value[:, t], policy.critic(state))
            torch.testing.assert_close(output.action_logits[:, t].flatten(1), policy.actor(state))
        torch.testing.assert_close(after, state)

    def test_the_gradient_flows_through_the_memory(self) -> None:
        policy, codes, state = (
            self.policy(),
            self.CODES.clone().requires_grad_(),
            self.STATE.clone().requires_grad_(),
        )
        policy(codes, state)[0].value[:, -1].sum().backward()
        assert (codes.grad.abs().amax(dim=(0, 2, 3)) > 0).all() and state.grad.abs().min() > 0

    @torch.no_grad()
    def test_what_positions_and_memory_are_for(self) -> None:
        """Without positions the order of codes says nothing; without memory, the past."""
        shuffled = self.CODES[:, :, [2, 0, 3, 1]]
        for positions in (True, False):
            policy = self.policy(positions=positions)
            same = torch.allclose(
                policy(self.CODES, self.STATE)[1], policy(shuffled, self.STATE)[1]
            )
            assert same != positions
        for memory in (True, False):
            policy = self.policy(memory=memory)
            before = torch.cat([-self.CODES[:, :4], self.CODES[:, 4:]], dim=1)
            same = torch.allclose(policy(self.CODES, self.STATE)[1], policy(before, self.STATE)[1])
            assert same != memory

    def test_dropout_is_for_what_it_learns_from(self) -> None:
        """In training it plays without; only forward() drops."""
        policy = self.policy().train()
        a, b = (policy(self.CODES, self.STATE)[1] for _ in range(2))
        assert not torch.equal(a, b)
        a, b = (policy.burn_in(self.CODES, self.STATE) for _ in range(2))
        assert torch.equal(a, b) and torch.equal(a, policy.eval()(self.CODES, self.STATE)[1])
        a, b = (policy.train().act(self.CODES[:, 0], self.STATE)[0] for _ in range(2))
        assert torch.equal(a, b)

    @pytest.mark.parametrize("changes", [{"heads": 3}, {"dropout": 1.0}])
    def test_misfits_are_refused(self, changes) -> None:
        with pytest.raises(BadInput, match="agent.policy"):
            self.policy(**changes)
