"""Configurations and command lines at random: each does what it says or is refused in one sentence.

    python -m tests.fuzz configurations=2000 commands=200 seed=0
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from agent.api import train
from agent.learner import NonFinite
from envs.errors import BadInput
from tests.scripts import commands
from tests.tiny import OF_AGENT

ACTIONS: dict[str, Callable[[], gymnasium.Space]] = {
    "two": lambda: spaces.Discrete(2),
    "offset": lambda: spaces.Discrete(3, start=-1),
    "one": lambda: spaces.Discrete(1),
    "many": lambda: spaces.MultiDiscrete([2, 3]),
    "grid": lambda: spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "switches": lambda: spaces.MultiBinary(3),
    "box": lambda: spaces.Box(-1, 1, (2,)),
    "unbounded": lambda: spaces.Box(-np.inf, np.inf, (1,)),
    "tuple": lambda: spaces.Tuple([spaces.Discrete(2)]),
}


class Anything(gymnasium.Env):
    """Noise of any shape and type, any actions, any rewards; an episode ends by chance."""

    def __init__(self, shape: list[int], kind: str, actions: str, scale: float, end: float, render_mode: str | None = None) -> None:
        high, dtype = {"bytes": (255, np.uint8), "unit": (1.0, np.float32), "bits": (1, np.bool_), "infinite": (np.inf, np.float32)}[kind]
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
        return (self.np_random.random(space.shape) * np.minimum(space.high.astype(float) + (space.dtype.kind in "ub"), 256)).astype(space.dtype)


# Key -> values to choose from, most of them possible. Each is tried by itself and with others.
VALUES: dict[str, list[Any]] = {
    "epochs": [1, 2, 0], "seed": [0, 7, -1, 2**40], "keep": [1, 0], "evaluate_every": [1, 3], "checkpoint_every": [1, 5],
    "precision": ["fp32", "bf16", "auto", "fp16"], "learner.mode": ["eager", "captured", "fast"], "learner.skips": [0, 3, -1],
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
SHAPES = [[16, 16, 3], [32, 32, 1], [3, 16, 16], [20, 30, 3], [10, 10, 6], [16, 16], [4], [2, 16, 16, 3], [0, 3, 3], [130, 130, 3], [16, 20, 3, 2]]


def configuration(rng: random.Random) -> tuple[str, ...]:
    """Arguments of a run of `Anything`."""
    agent = rng.choice(list(OF_AGENT))
    base = [s for s in OF_AGENT[agent] if not s.startswith(("env.id", "experiment"))]
    world = {
        "shape": rng.choice(SHAPES[:4] * 4 + SHAPES), "kind": rng.choice(["bytes", "bytes", "unit", "bits", "infinite"]),
        "actions": rng.choice(list(ACTIONS)), "scale": rng.choice([0.0, 1.0, 1e6, 1e30]), "end": rng.choice([0.0, 0.05, 0.5, 1.0]),
    }  # fmt: skip
    size = 32 if rng.random() < 0.8 else rng.choice([16, 64])
    chosen = {key: rng.choice(VALUES[key]) for key in rng.sample(list(VALUES), rng.choice([0, 1, 1, 2, 3, 6]))}
    few = ("epochs=1", "collect.first_steps=20", "evaluation.episodes=1", "env.kwargs.max_episode_steps=20", f"env.size={size}", "logger=csv")
    given = dict(a.partition("=")[::2] for a in (*base, *few)) | {f"env.kwargs.{k}": v for k, v in world.items()} | chosen
    return tuple(f"{key}={value}".replace(" ", "") for key, value in given.items())


def attempt(arguments: tuple[str, ...], folder: Path) -> str:
    """Trains with these arguments -> "trained", or by what it was refused. Raises what nobody foresaw, and AssertionError for a
    refusal that is no single sentence or left something behind."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            train(Anything, *arguments, f"run={run}")
            return "trained"
        except NonFinite as error:
            assert "Stopped in epoch" in str(error), error
            return "not finite"
        except BadInput as error:
            assert str(error).endswith((".", ")", "?")) and "\n" not in str(error) and len(str(error)) < 600, error
            assert not run.exists(), (error, list(run.iterdir()))
            return "refused"


def fuzz(number: int, seed: int) -> Counter[str]:
    """Trains by so many configurations -> how many of each outcome. An error names the arguments that led to it."""
    rng, outcomes = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.trainer.Trainer.show", lambda self, recording: None)  # films take most of the time
        patch.setattr("agent.run.report", lambda folder, config: None)
        for i in range(number):
            arguments = configuration(rng)
            try:
                outcomes[attempt(arguments, Path(folder))] += 1
            except Exception as error:
                error.add_note(f"configuration {i} of seed {seed}: " + " ".join(arguments))
                raise
    return outcomes


def command_line(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """A script, and arguments of it with a few characters or words that went wrong."""
    script = rng.choice(["train", "train", "evaluate", "play", "check_env", "report"])
    whole = {
        "train": [*OF_AGENT["delta_iris"], "epochs=1", "run=run"], "check_env": ["env=gym", "env.id=CartPole-v1"], "report": ["runs=run"],
        "evaluate": ["run=run", "episodes=2", "env.id=deltadream/Catch-v0"], "play": ["run=run", "by=agent", "where=dream", "video=a.gif", "steps=3"],
    }  # fmt: skip
    words = list(whole[script])
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(words) + 1)
        strange = rng.choice(["", "=", "a", "--x", "-m", "~seed", "+x=1", "seed=", "seed=[1,2", "x=${y}", "é=é", "seed=1,2", "--cfg", "'", "@", "%"])
        if rng.random() < 0.5:
            words.insert(at, strange)
        else:
            word = words[at - 1]
            cut = rng.randrange(len(word) + 1)
            words[at - 1] = word[:cut] + rng.choice(["", strange, "=", ",", "[", "{", "$", " "]) + word[cut + rng.randrange(2) :]
    return script, tuple(words)


def attempt_command(script: str, arguments: tuple[str, ...], folder: Path) -> str:
    """Runs it -> "done" or "refused". AssertionError for a traceback or anything else but one sentence."""
    result = commands.run_command(script, arguments, cwd=folder)
    assert "Traceback" not in result.err and result.code in (0, 2), (result.code, result.err[-2000:])
    assert result.code == 0 or len(result.err.strip().splitlines()) == 1, result.err
    return "refused" if result.code else "done"


def fuzz_commands(number: int, seed: int) -> Counter[str]:
    """The same of so many command lines."""
    rng, outcomes = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(number):
            script, arguments = command_line(rng)
            try:
                outcomes[attempt_command(script, arguments, Path(folder))] += 1
            except Exception as error:
                error.add_note(f"command {i} of seed {seed}: {script} {arguments}")
                raise
    return outcomes


if __name__ == "__main__":
    given = {key: int(value) for key, value in (argument.split("=") for argument in sys.argv[1:])}
    print("configurations:", dict(fuzz(given.get("configurations", 2000), given.get("seed", 0))))
    print("command lines:", dict(fuzz_commands(given.get("commands", 200), given.get("seed", 0))))
