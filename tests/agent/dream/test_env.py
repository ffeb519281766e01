"""The dream of a run as an environment: Gymnasium's rules, its seeds, its starts, one as many."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import envs  # noqa: F401
from agent.agent import Agent
from agent.dream.batch import Dreams
from agent.dream.env import DreamEnv, DreamVectorEnv
from agent.dream.starts import given_starts
from agent.runs.api import configure
from agent.runs.train import train
from envs.errors import BadInput
from envs.games.catch import CatchEnv
from envs.spaces import Spaces
from tests.tiny import OF_AGENT, leave_out_films, tiny

DREAM = "deltadream/Dream-v0"
N = 5


def run_of(agent: str, tmp_path_factory) -> Path:
    """Of Catch, of one epoch: its world ends episodes at random."""
    folder = tmp_path_factory.mktemp("dream") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_films(patch)
        train(configure(*OF_AGENT[agent], "epochs=1", "logger=csv", f"run={folder}"), [])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return run_of("delta_iris", tmp_path_factory)


@pytest.fixture(scope="module", params=OF_AGENT)
def run_of_any(request, run, tmp_path_factory) -> Path:
    return run if request.param == "delta_iris" else run_of(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """The first frames of an episode, [4, 32, 32, 3]."""
    env = CatchEnv()
    return np.stack([env.reset(seed=0)[0], *(env.step(1)[0] for _ in range(3))])


def make(run: Path, **options: Any) -> gymnasium.Env:
    return gymnasium.make(DREAM, run=run, **options)


def make_vec(run: Path, number: int = N, **options: Any) -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec(DREAM, number, run=run, **options)


def actions_for(number: int, steps: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, size=(steps, number))


def played(env: gymnasium.vector.VectorEnv, steps: int, seed: int | None) -> list[tuple]:
    """The first observations, and what each step gave besides infos."""
    return [env.reset(seed=seed)[:1], *(env.step(a)[:4] for a in actions_for(env.num_envs, steps))]


def same(ours: list[tuple], theirs: list[tuple]) -> bool:
    return all(
        np.array_equal(a, b)
        for x, y in zip(ours, theirs, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_gymnasium_is_content(run):
    env = make(run, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
    vector, real = make_vec(run), CatchEnv()
    assert env.observation_space == vector.single_observation_space == real.observation_space
    assert env.action_space == vector.single_action_space == real.action_space
    assert vector.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert vector.reset(seed=0)[0] in vector.observation_space
    observations, *rest, _ = vector.step(vector.action_space.sample())
    assert observations in vector.observation_space and all(x.shape == (N,) for x in rest)


def test_seeds_decide_all(run):
    env = make_vec(run)
    first = played(env, 15, seed=3)
    assert same(first, played(env, 15, seed=3)) and same(first, played(make_vec(run), 15, seed=3))
    other = played(env, 15, seed=4)
    going_on = played(env, 15, seed=None)  # the generators go on, and begin other episodes
    assert not same(first, other) and not same(going_on, other)
    env.reset(seed=[9, 9, 1, 2, 9])
    observations, *_ = zip(*[env.step(np.ones(N, int)) for _ in range(6)], strict=True)
    assert all(np.array_equal(o[0], o[1]) and np.array_equal(o[0], o[4]) for o in observations)
    assert any(not np.array_equal(o[0], o[2]) for o in observations)


def test_many_dream_what_one_dreams(run_of_any):
    """The i-th of many, seeded with s, is one alone, seeded with s + i, across ends too."""
    vector, actions, ends = make_vec(run_of_any, max_episode_steps=9), actions_for(N, 20), 0
    observations, _ = vector.reset(seed=7)
    steps = [vector.step(a)[:4] for a in actions]
    for i in (0, N - 1):
        env = make(run_of_any, max_episode_steps=9)
        observation, _ = env.reset(seed=7 + i)
        assert np.array_equal(observation, observations[i])
        over = False
        for a, step in zip(actions[:, i], steps, strict=True):
            if over:
                observation, reward, terminated, truncated = env.reset()[0], 0.0, False, False
            else:
                observation, reward, terminated, truncated, _ = env.step(a)
            over = terminated or truncated
            ends += over
            # A batch of another size may round otherwise, and that adds up.
            assert np.abs(observation.astype(int) - step[0][i]).max() <= 8
            assert reward == pytest.approx(step[1][i], abs=0.02)
            assert (terminated, truncated) == (step[2][i], step[3][i])
    assert ends > 2


def test_ends_in_the_same_step(run):
    """What NEXT_STEP spreads over two steps, with the same episodes."""
    later = make_vec(run, max_episode_steps=4)
    at_once = make_vec(run, max_episode_steps=4, autoreset_mode="SameStep")
    later.reset(seed=1)
    at_once.reset(seed=1)
    ended = 0
    for _ in range(12):
        step = later.step(np.ones(N, int))
        observations, rewards, terminated, truncated, infos = at_once.step(np.ones(N, int))
        over = terminated | truncated
        assert same([(rewards, terminated, truncated)], [step[1:4]])
        if not over.any():
            assert not infos and np.array_equal(observations, step[0])
            continue
        ended += over.sum()
        assert np.array_equal(infos["_final_obs"], over)
        for i in range(N):
            assert np.array_equal(infos["final_obs"][i] if over[i] else observations[i], step[0][i])
        # Everyone else of `later` waits: begin all of both anew.
        later.reset(seed=ended)
        at_once.reset(seed=ended)
    assert ended >= N


def test_factors_and_channels():
    """A world of two factors and frames of four channels."""
    torch.manual_seed(0)
    agent = Agent(tiny().agent, Spaces(channels=4, size=32, actions=(3, 5))).eval()
    frames = np.random.default_rng(0).integers(256, size=(2, 1, 32, 32, 4), dtype=np.uint8)
    starts = given_starts({"frames": frames}, agent.spaces)
    env = DreamEnv(Dreams(agent, starts, 1), "rgb_array")
    check_env(env, skip_render_check=True)  # it would need a spec
    assert env.observation_space.shape == (32, 32, 4)
    assert env.action_space == gymnasium.spaces.MultiDiscrete([3, 5])
    assert env.render().shape == (256, 256, 3)
    many = DreamVectorEnv(Dreams(agent, starts, N))
    assert many.reset(seed=0)[0].shape == (N, 32, 32, 4)
    many.step(many.action_space.sample())
    with pytest.raises(BadInput, match=r"give 5 of MultiDiscrete\(\[3 5\]\)"):
        many.step(np.full((N, 2), 3))


def test_some_begin_anew(run):
    """Gymnasium's reset_mask: the others go on as if nothing had been."""
    env, mask = make_vec(run, autoreset_mode="SameStep"), np.arange(N) % 2 == 0
    env.reset(seed=3)
    before, *_ = env.step(np.zeros(N, int))
    after, _ = env.reset(options={"reset_mask": mask})
    assert np.array_equal(after[~mask], before[~mask]) and not env.steps[mask].any()
    assert not np.array_equal(after[mask], before[mask])


def test_time_limit(run):
    assert make(run).spec.max_episode_steps == make_vec(run).limit == 1000
    assert make_vec(run, max_episode_steps=-1).limit == np.inf
    vector = make_vec(run, max_episode_steps=1)
    vector.reset(seed=0)
    *_, truncated, _ = vector.step(np.zeros(N, int))
    assert truncated.all()
    _, rewards, terminated, truncated, _ = vector.step(np.zeros(N, int))
    assert not rewards.any() and not terminated.any() and not truncated.any()


def test_given_frames(run, frames):
    """As options of a reset or as starts, they begin the same episodes."""
    past, between = frames[2:4], np.array([[1]])
    env = make(run, starts={"frames": past[None], "actions": between[None]})
    assert np.array_equal(env.reset(seed=5)[0], past[-1])
    other = make_vec(run)
    observations, _ = other.reset(seed=5, options={"frames": past, "actions": between})
    assert all(np.array_equal(o, past[-1]) for o in observations)
    observation, observations = env.step(1)[0], other.step(np.ones(N, int))[0]
    assert np.abs(observations[0].astype(int) - observation).max() <= 1
    env.reset(options={"frames": frames[:1], "actions": None})
    assert env.step(0)[0].shape == (32, 32, 3)


def test_the_replay_is_needed_only_to_start_from_it(run, frames, tmp_path):
    shutil.copytree(run / "checkpoints", tmp_path / "run" / "checkpoints")
    with pytest.raises(BadInput, match="is missing"):
        make(tmp_path / "run")
    env = make(tmp_path / "run", starts={"frames": frames[:, None]})
    env.reset(seed=0)
    env.step(0)


def test_rendering(run):
    env = make(run, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    assert np.array_equal(env.render(), observation.repeat(8, axis=0).repeat(8, axis=1))
    vector = make_vec(run, render_mode="rgb_array")
    observations, _ = vector.reset(seed=0)
    assert np.array_equal([picture[::8, ::8] for picture in vector.render()], observations)


PICTURE = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": "last"}, "starts=last .* anywhere, first"),
        ({"starts": {"frame": PICTURE}}, r"frame \[1, 32, 32, 3\]; give frames"),
        ({"starts": {"frames": PICTURE}}, r"uint8 \[M, T, 32, 32, 3\]"),
        ({"starts": {"frames": PICTURE[None, [0, 0]]}}, r"actions, \[M, T − 1, 1\]"),
        ({"mode": "fast"}, "mode=fast is not known; choose one of auto, eager"),
        ({"mode": "captured", "device": "cpu"}, "mode=captured .* device=cpu"),
        ({"device": "tpu"}, "device=tpu"),
        ({"autoreset_mode": AutoresetMode.DISABLED}, "autoreset_mode=.* NextStep or SameStep"),
        ({"run": "nothing"}, "nothing holds no checkpoint"),
    ],
)
def test_bad_input_is_one_sentence(run, options, message):
    with pytest.raises(BadInput, match=message):
        make_vec(**{"run": run, "number": 1} | options)


def test_bad_input_on_the_way(run):
    env = make_vec(run)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(N, int))
    with pytest.raises(BadInput, match="give frames"):
        env.reset(options={"frames": PICTURE, "rewards": []})
    env.reset()
    for wrong in ([0, 1, 2, 3, 0], [0, 1, 2, -1, 0], [0, 1], [0, 1, 2, 0.5, 0], [None] * N):
        with pytest.raises(BadInput, match=r"give 5 of Discrete\(3\)"):
            env.step(np.array(wrong))


def test_as_stable_baselines_wants_it(run):
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import PPO

    from agent.dream.stable_baselines import StableBaselines

    with pytest.raises(BadInput, match="autoreset_mode"):
        StableBaselines(make_vec(run))
    options = {"max_episode_steps": 3, "autoreset_mode": "SameStep", "render_mode": "rgb_array"}
    env, twin = StableBaselines(make_vec(run, **options)), make_vec(run, **options)
    env.seed(11)
    assert np.array_equal(env.reset(), twin.reset(seed=11)[0])
    ended = 0
    for a in actions_for(N, 6):
        observations, _, done, infos = env.step(a)
        expected, _, terminated, truncated, final = twin.step(a)
        assert same([(observations, done)], [(expected, terminated | truncated)])
        for i, info in enumerate(infos):
            assert info["TimeLimit.truncated"] == (truncated[i] and not terminated[i])
            assert ("terminal_observation" in info) == done[i]
            if done[i]:
                assert np.array_equal(info["terminal_observation"], final["final_obs"][i])
        ended += done.sum()
    assert ended >= N and env.render().shape[2] == 3
    PPO("MlpPolicy", env, n_steps=4, batch_size=10, n_epochs=1, device="cpu").learn(8 * N)
    env.close()
