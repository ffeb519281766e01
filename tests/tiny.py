"""A run of seconds: every part of the loop on Catch, as small as it gets."""

import pytest
from omegaconf import OmegaConf

from agent.config import TrainConfig
from agent.config.compose import merged
from agent.runs.api import configure

TINY = (
    "experiment=catch", "env.id=deltadream/Catch-v0", "epochs=2",
    "collect.num_envs=3", "collect.first_steps=60", "collect.steps=40", "collect.epochs=100",
    "replay.capacity=3000", "replay.storage=memory", "replay.alpha=1",
    "tokenizer.batch=2", "tokenizer.steps=4", "tokenizer.updates=2", "tokenizer.first_updates=3",
    "dynamics.batch=2", "dynamics.steps=5", "dynamics.updates=2", "dynamics.first_updates=3",
    "policy.batch=2", "policy.updates=2", "policy.first_updates=2",
    *(f"agent.{part}conv.{what}" for part in ("tokenizer.", "tokenizer.frame_", "dynamics.", "policy.")
      for what in ("base=8", "mult=[1]", "down=[0]", "patch=8", "groups=4")),
    "agent.tokenizer.quantizer.size=8", "agent.tokenizer.quantizer.dim=4",
    "agent.tokenizer.tokens=1", "agent.tokenizer.latent=2",
    "agent.dynamics.context=6", "agent.dynamics.transformer.layers=1",
    "agent.dynamics.transformer.heads=2", "agent.dynamics.transformer.width=32",
    "agent.policy.latent=2", "agent.policy.hidden=8",
    "agent.actor_critic.burn_in=2", "agent.actor_critic.horizon=4",
    "evaluation.episodes=4", "evaluation.num_envs=2", "evaluate_every=1", "checkpoint_every=1",
)  # fmt: skip

# IRIS and DART as small: their frames are 2×2 tokens.
_FRAMES = (
    *(
        s
        for s in TINY
        if not s.startswith(("agent.tokenizer", "agent.dynamics.conv", "agent.policy"))
    ),
    *(
        f"agent.tokenizer.conv.{what}"
        for what in ("base=8", "mult=[1]", "down=[0]", "patch=16", "groups=4", "attention=1")
    ),
    "agent.tokenizer.quantizer.size=8",
    "agent.tokenizer.quantizer.dim=4",
)
OF_AGENT = {
    "delta_iris": TINY,
    "iris": ("agent=iris", *_FRAMES, *(s for s in TINY if s.startswith("agent.policy"))),
    "dart": ("agent=dart", *_FRAMES, "agent.policy.layers=1", "agent.policy.heads=2", "agent.policy.width=16", "agent.policy.mlp=16"),
}  # fmt: skip

# The same on Crafter: 64×64 pixels, 16×16 cells of 4.
TINY_CRAFTER = (
    *(setting.replace("patch=8", "patch=16") for setting in TINY if not setting.startswith(("env.id", "experiment"))),
    "experiment=crafter", "env.id=deltadream/Crafter-v1", "+env.kwargs.length=60", "collect.first_steps=150",
)  # fmt: skip


def leave_out_films(patch: pytest.MonkeyPatch) -> None:
    """They and the curves take most of the time of runs as short as these."""
    patch.setattr("agent.training.callbacks.Films.show", lambda *_: None)
    patch.setattr("agent.runs.run.report", lambda *_: None)


def tiny(*overrides: str, base: tuple[str, ...] = TINY) -> TrainConfig:
    """The configuration in this process, with changes."""
    values = OmegaConf.to_container(
        OmegaConf.from_dotlist([s.lstrip("+") for s in (*base, *overrides)])
    )
    return OmegaConf.to_object(merged(TrainConfig, values))


def tiny_of(agent: str, *overrides: str) -> TrainConfig:
    """The same of one of the agents: a key of OF_AGENT."""
    return configure(*OF_AGENT[agent], *overrides)


def experiment(name: str, *overrides: str) -> TrainConfig:
    """An experiment of configs/, as the command composes it."""
    return configure(f"experiment={name}", *overrides)
