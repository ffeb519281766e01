"""Configurations at random: each trains or is refused.

    python -m tests.fuzz configurations=2000 seed=0

A refusal is one sentence and writes nothing. Hypothesis draws, and shrinks what ends otherwise.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import hypothesis
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from agent.runs.api import train
from agent.training.learner import NonFinite
from envs.errors import BadInput
from tests.tiny import OF_AGENT, leave_out_films

ACTIONS: dict[str, Callable[[], gymnasium.Space]] = {  # the agent takes all but the last two
    "offset": lambda: spaces.Discrete(3, start=-1),
    "one": lambda: spaces.Discrete(1),
    "many": lambda: spaces.MultiDiscrete([2, 3]),
    "switches": lambda: spaces.MultiBinary(3),
    "box": lambda: spaces.Box(-1, 1, (2,)),
    "unbounded": lambda: spaces.Box(-np.inf, np.inf, (1,)),
    "tuple": lambda: spaces.Tuple([spaces.Discrete(2)]),
}


class Anything(gymnasium.Env):
    """Noise of any shape and type, any actions, any rewards; an episode ends by chance."""

    def __init__(self, shape, kind, actions, scale, end, render_mode=None) -> None:
        high, dtype = {
            "bytes": (255, np.uint8),
            "unit": (1.0, np.float32),
            "infinite": (np.inf, np.float32),
        }[kind]
        self.observation_space = spaces.Box(0, high, tuple(shape), dtype)
        self.action_space = ACTIONS[actions]()
        self.scale, self.end = scale, end

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        reward = float(self.np_random.normal() * self.scale)
        ended, cut = self.np_random.random(2) < self.end
        return self._observation(), reward, bool(ended), bool(cut), {}

    def _observation(self) -> np.ndarray:
        space = self.observation_space
        most = np.minimum(space.high.astype(float) + (space.dtype.kind in "ub"), 256)
        return (self.np_random.random(space.shape) * most).astype(space.dtype)


# Key -> values to choose from, most of them possible. Each is tried by itself and with others.
VALUES: dict[str, list[Any]] = {
    "epochs": [1, 2, 0], "seed": [0, 7, -1, 2**40], "keep": [1, 0], "evaluate_every": [1, 3], "checkpoint_every": [1, 5],
    "precision": ["fp32", "bf16", "auto", "fp16"], "learner.mode": ["eager", "captured", "fast"],
    "collect.num_envs": [1, 3, 0], "collect.first_steps": [1, 9, 40], "collect.steps": [1, 9], "collect.epsilon": [0, 1, 1.5],
    "replay.capacity": [1, 5, 30, 3000], "replay.storage": ["memory", "memmap", "device", "tape"], "replay.alpha": [0, 50, -1],
    **{f"{part}.{key}": [0, 1, 3] for part in ("tokenizer", "dynamics", "policy") for key in ("updates", "first_updates", "start_epoch")},
    **{f"{part}.batch": [1, 3, 0] for part in ("tokenizer", "dynamics", "policy")},
    "tokenizer.steps": [1, 2, 7, 30], "dynamics.steps": [2, 5, 6, 7, "null"], "policy.learning_rate": [0, 1e-3, 1e9, -1],
    "tokenizer.max_gradient_norm": [1e-9, 10, 0], "dynamics.weight_decay": [0, 1, -1],
    "agent.dynamics.context": [1, 2, 3, 6, 9], "agent.actor_critic.horizon": [1, 2, 9], "agent.actor_critic.burn_in": [1, 2, 3, 8],
    "agent.actor_critic.discount": [0, 0.9, 1, 2], "agent.actor_critic.lambda_": [0, 1, -1], "agent.actor_critic.center": ["true", "maybe"],
    "agent.tokenizer.tokens": [1, 2, 4, 5], "agent.tokenizer.latent": [1, 3], "agent.tokenizer.action": ["false"],
    "agent.tokenizer.quantizer.size": [1, 2, 4, 9, 16], "agent.tokenizer.quantizer.dim": [1, 2, 4, 5],
    "agent.tokenizer.quantizer.codebooks": [2, 3], "agent.tokenizer.quantizer.kind": ["vq", "vq_ema", "fsq", "none"],
    "agent.tokenizer.quantizer.gradient": ["rotation", "none"], "quantizer": ["fsq", "vq_rotation", "cosine_ema_product"],
    "agent.tokenizer.conv.base": [4, 8, 12], "agent.tokenizer.conv.mult": ["[1]", "[1,2]", "[]"], "agent.tokenizer.conv.down": ["[0]", "[1]", "[0,1]"],
    "agent.tokenizer.conv.patch": [1, 4, 16, 5], "agent.tokenizer.conv.groups": [1, 3, 4], "agent.tokenizer.conv.attention": [0, 1, 4],
    "agent.dynamics.transformer.width": [8, 32, 33], "agent.dynamics.transformer.heads": [1, 2, 3], "agent.dynamics.transformer.layers": [1, 2, 0],
    "agent.dynamics.transformer.dropout": [0, 0.5, 1, 2], "agent.dynamics.i_token": ["false"], "agent.policy.hidden": [1, 9],
    "agent.policy.memory": ["false"], "agent.policy.positions": ["false"], "agent.policy.width": [6, 16, 17], "agent.policy.heads": [1, 2, 5],
    "agent.policy.value": ["two_hot", "scalar", "none"], "agent/policy": ["cnn_lstm", "code_lstm", "vit", "mlp"],
    "evaluation.episodes": [1, 3, 0], "evaluation.num_envs": [1, 2], "evaluation.temperature": [0, 1, -1],
    "env.size": [16, 32, 48, 64, 33], "env.bins": [2, 3, 1], "env.pixels": ["observation", "render"], "env.layout": ["hw", "hwc", "chw", "hwcs", "cwh", "hh"],
    "env.range": ["[0,1]", "[-5,300]", "[1,0]", "[0]"], "env.kwargs.max_episode_steps": [1, 5],
    "nonsense": [1], "agent.nonsense": [1],
}  # fmt: skip
SHAPES = [
    *([16, 16, 3], [32, 32, 1], [3, 16, 16], [20, 30, 3], [10, 10, 6], [16, 16], [4]),
    *([2, 16, 16, 3], [0, 3, 3], [130, 130, 3], [16, 20, 3, 2]),
]


@st.composite
def configurations(draw: st.DrawFn) -> tuple[str, ...]:
    """Arguments of a run of `Anything`."""
    agent = draw(st.sampled_from(list(OF_AGENT)))
    base = [s for s in OF_AGENT[agent] if not s.startswith(("env.id", "experiment"))]
    world = {
        "shape": draw(st.sampled_from(SHAPES[:4] * 4 + SHAPES)), "kind": draw(st.sampled_from(["bytes", "bytes", "unit", "infinite"])),
        "actions": draw(st.sampled_from(list(ACTIONS))), "scale": draw(st.sampled_from([0.0, 1.0, 1e6, 1e30])),
        "end": draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])),
    }  # fmt: skip
    keys = draw(st.lists(st.sampled_from(list(VALUES)), unique=True, max_size=6))
    chosen = {key: draw(st.sampled_from(VALUES[key])) for key in keys}
    few = (
        "epochs=1", "collect.first_steps=20", "agent.actor_critic.horizon=2", "evaluation.episodes=1", "env.kwargs.max_episode_steps=20",
        "logger=csv", f"env.size={draw(st.sampled_from([32] * 8 + [16, 64]))}",
        *(f"{part}.first_updates=1" for part in ("tokenizer", "dynamics", "policy")),
    )  # fmt: skip
    given = dict(argument.partition("=")[::2] for argument in (*base, *few))
    given |= {f"env.kwargs.{name}": value for name, value in world.items()} | chosen
    return tuple(f"{key}={value}".replace(" ", "") for key, value in given.items())


def try_configuration(arguments: tuple[str, ...], place: Path) -> str:
    """Train with these arguments -> "trained", or by what it was refused."""
    run, out = place / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        leave_out_films(patch)
        try:
            train(Anything, *arguments, f"run={run}")
            return "trained"
        except NonFinite as error:
            assert "Stopped in epoch" in str(error), error
            return "not finite"
        except BadInput as error:
            said = str(error)
            assert said.endswith((".", ")", "?")) and "\n" not in said and len(said) < 600, said
            assert not run.exists(), (said, list(run.iterdir()))
            return "refused"


def main(number: int, seed: int) -> Counter[str]:
    """So many configurations -> how many of each outcome. An error names what was drawn."""
    outcomes: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(configurations())
    def each(given: tuple[str, ...]) -> None:
        with tempfile.TemporaryDirectory() as place:
            outcomes[try_configuration(given, Path(place))] += 1

    each()
    return outcomes


if __name__ == "__main__":
    asked = {k: int(v) for k, v in (a.split("=") for a in sys.argv[1:])}
    print(dict(main(asked.get("configurations", 100), asked.get("seed", 0))))
