from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from agent.agent import Agent
from agent.config import ActorCriticConfig, AgentConfig
from agent.config.networks import ConvConfig, TransformerConfig
from agent.config.policies import (
    CnnLstmPolicyConfig,
    CodeLstmPolicyConfig,
    PolicyConfig,
    VitPolicyConfig,
)
from agent.config.quantizers import CosineEmaConfig, VqConfig
from agent.config.tokenizers import (
    DeltaLightTokenizerConfig,
    DeltaTokenizerConfig,
    FrameTokenizerConfig,
)
from agent.config.world_models import (
    DeltaDynamicsConfig,
    DeltaLightDynamicsConfig,
    FrameDynamicsConfig,
)
from agent.runs.train import train
from agent.segment import Segment
from envs.spaces import Spaces
from tests.tiny import leave_out_films, tiny

ACTIONS, SIZE = 4, 16
SPACES = Spaces(channels=3, size=SIZE, actions=(ACTIONS, ACTIONS))


def small_config() -> AgentConfig:
    """Every part of the agent, as small as it gets."""

    def conv() -> ConvConfig:
        return ConvConfig(base=8, mult=[1, 2], down=[1, 1], groups=4)

    return AgentConfig(
        tokenizer=DeltaTokenizerConfig(
            conv=conv(),
            frame_conv=conv(),
            quantizer=CosineEmaConfig(size=16, dim=8),
            tokens=4,
            latent=8,
        ),
        dynamics=DeltaDynamicsConfig(
            conv=conv(), transformer=TransformerConfig(layers=2, heads=2, width=32), context=8
        ),
        policy=CnnLstmPolicyConfig(conv=conv(), latent=4, hidden=16),
        actor_critic=ActorCriticConfig(burn_in=3, horizon=5),
    )


POLICIES: dict[str, PolicyConfig] = {
    "cnn_lstm": small_config().policy,
    "code_lstm": CodeLstmPolicyConfig(latent=4, hidden=16),
    "vit": VitPolicyConfig(layers=2, heads=2, width=16, mlp=16, dropout=0.2),
}
AGENTS = {
    "delta_iris": ("delta", "cnn_lstm"),
    "delta_light": ("delta_light", "code_lstm"),
    "iris": ("frame", "cnn_lstm"),
    "dart": ("frame", "vit"),
}


def shared(config: object) -> dict[str, object]:
    """What a light part has in common with the published one."""
    return {name: value for name, value in vars(config).items() if name != "kind"}


def config_of(world: str, policy: str) -> AgentConfig:
    """As small, of any combination."""
    parts = small_config()
    if world == "delta_light":
        parts.tokenizer = DeltaLightTokenizerConfig(
            **shared(parts.tokenizer),
            residual=True,
            embedding_std=1.0,
            change_weighting=30.0,
            pushforward_after=2,
        )
        parts.dynamics = DeltaLightDynamicsConfig(
            **shared(parts.dynamics), latent=4, pushforward_from=2
        )
        parts.actor_critic.entropy_half_life = 2
    if world == "frame":
        conv = ConvConfig(
            base=8, mult=[1, 1], down=[1, 1], patch=2, groups=4, attention=1
        )  # 2×2 tokens
        parts.tokenizer = FrameTokenizerConfig(
            conv=conv, quantizer=VqConfig(size=16, dim=8, commitment=1.0)
        )
        parts.dynamics = FrameDynamicsConfig(
            transformer=TransformerConfig(layers=2, heads=2, width=32, dropout=0.1), context=6
        )
    parts.policy = copy.deepcopy(POLICIES[policy])
    return parts


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
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_films(patch)
        train(
            tiny(
                f"run={folder}",
                "epochs=3",
                "keep=3",
                "learner.mode=eager",
                "evaluation.num_envs=1",
                "logger=csv",
            ),
            [],
        )
    return folder
