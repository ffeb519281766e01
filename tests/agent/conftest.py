from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from agent.agent import Agent
from agent.config import KINDS, ActorCriticConfig, AgentConfig
from agent.config.networks import ConvConfig, TransformerConfig
from agent.config.policies import PolicyConfig
from agent.config.quantizers import CosineEmaConfig, VqConfig
from agent.runs.train import train
from agent.segment import Segment
from envs.spaces import Spaces
from tests.tiny import leave_out_films, tiny

ACTIONS, SIZE = 4, 16
SPACES = Spaces(channels=3, size=SIZE, actions=(ACTIONS, ACTIONS))
CONV = ConvConfig(base=8, mult=[1, 2], down=[1, 1], groups=4)

POLICIES: dict[str, PolicyConfig] = {
    "cnn_lstm": KINDS["policy"]["cnn_lstm"](conv=CONV, latent=4, hidden=16),
    "code_lstm": KINDS["policy"]["code_lstm"](latent=4, hidden=16),
    "vit": KINDS["policy"]["vit"](layers=2, heads=2, width=16, mlp=16, dropout=0.2),
}
AGENTS = {
    "delta_iris": ("delta", "cnn_lstm"),
    "delta_light": ("delta_light", "code_lstm"),
    "iris": ("frame", "cnn_lstm"),
    "dart": ("frame", "vit"),
}
LIGHT = {  # what delta_light has besides
    "tokenizer": {
        "residual": True,
        "embedding_std": 1.0,
        "change_weighting": 30.0,
        "pushforward_after": 2,
    },
    "dynamics": {"latent": 4, "pushforward_from": 2},
}


def config_of(world: str, policy: str = "cnn_lstm") -> AgentConfig:
    """Every part of an agent, as small as it gets."""
    tokenizer, dynamics = KINDS["tokenizer"][world], KINDS["dynamics"][world]
    transformer = TransformerConfig(layers=2, heads=2, width=32)
    actor_critic = ActorCriticConfig(burn_in=3, horizon=5)
    if world == "frame":  # 2×2 tokens
        conv = ConvConfig(base=8, mult=[1, 1], down=[1, 1], patch=2, groups=4, attention=1)
        transformer.dropout = 0.1
        parts = (
            tokenizer(conv=conv, quantizer=VqConfig(size=16, dim=8, commitment=1.0)),
            dynamics(transformer=transformer, context=6),
        )
    else:
        light = LIGHT if world == "delta_light" else {"tokenizer": {}, "dynamics": {}}
        book = CosineEmaConfig(size=16, dim=8)
        sizes = {"conv": CONV, "frame_conv": CONV, "quantizer": book, "tokens": 4, "latent": 8}
        parts = (
            tokenizer(**sizes, **light["tokenizer"]),
            dynamics(conv=CONV, transformer=transformer, context=8, **light["dynamics"]),
        )
        if world == "delta_light":
            actor_critic.entropy_half_life = 2
    return copy.deepcopy(AgentConfig(*parts, POLICIES[policy], actor_critic))


def small_config() -> AgentConfig:
    """The published agent's parts."""
    return config_of("delta")


def make_agent(world: str = "delta", patch: int | None = None, **dynamics: object) -> Agent:
    """In evaluation mode, with weights so large that every input is felt.

    patch: of the tokenizer's encoder, if not the usual one; of 4, a frame is one token
    """
    config = config_of(world)
    config.tokenizer.conv.patch = patch or config.tokenizer.conv.patch
    for name, value in dynamics.items():
        setattr(config.dynamics, name, value)
    config.actor_critic = ActorCriticConfig(burn_in=1, horizon=config.dynamics.context)
    torch.manual_seed(0)
    agent = Agent(config, SPACES).eval().requires_grad_(False)
    for p in agent.dynamics.parameters():
        if p.ndim == 2:
            p.normal_(std=0.2)
    if world == "frame":  # codes among the encoder's vectors
        agent.tokenizer.quantizer.codebook.normal_(std=0.3)
    return agent


def random_segment(
    batch: int, steps: int, size: int = SIZE, actions: int = ACTIONS, seed: int = 0
) -> Segment:
    """Noise: padding before row 0's steps and behind the last row's, whose episode ends."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, steps, dtype=torch.bool)
    mask[0, 0] = False
    mask[-1, -1] = False
    terminated = torch.zeros(batch, steps, dtype=torch.bool)
    terminated[-1, -2] = True
    return Segment(
        frames=torch.randint(0, 256, (batch, steps, 3, size, size), generator=g, dtype=torch.uint8),
        actions=torch.randint(0, actions, (batch, steps, 2), generator=g) * mask[..., None],
        rewards=torch.randint(-1, 2, (batch, steps), generator=g).float() * mask,
        terminated=terminated,
        truncated=torch.zeros_like(terminated),
        mask=mask,
        batch_size=[batch, steps],
    )


def padded_segment(steps: int) -> Segment:
    """Row 0 starts after two padded steps, row 1 ends after three; rewards of all sizes."""
    segment = random_segment(3, steps)
    segment.mask[:] = True
    segment.mask[0, :2] = segment.mask[1, 3:] = False
    segment.terminated[:] = False
    segment.terminated[1, 2] = True
    segment.rewards[:] = torch.linspace(-3, 40, 3 * steps).view(3, steps)
    return segment


def floats(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    """Losses as numbers, to compare."""
    return {name: value.item() for name, value in losses.items()}


def unlearned(module: torch.nn.Module) -> list[str]:
    """The parameters in which no gradient arrived."""
    return [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    return Agent(small_config(), SPACES)


@pytest.fixture
def without_films(monkeypatch) -> None:
    leave_out_films(monkeypatch)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run of three epochs with all its checkpoints. Copy it before changing it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    changes = ("epochs=3", "keep=3", "learner.mode=eager", "evaluation.num_envs=1", "logger=csv")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_films(patch)
        train(tiny(f"run={run}", *changes), [])
    return run
