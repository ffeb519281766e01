"""How things are timed and printed; steps a second of the environment and of dreams."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Timer

from agent.agent import Agent
from agent.benchmark.config import BenchmarkConfig
from agent.config import ReplayConfig
from agent.data.collect import Collector
from agent.data.replay import Replay
from agent.dream.batch import Dreams
from agent.dream.env import DreamVectorEnv
from agent.dream.starts import StartStates, given_starts
from agent.execution import EAGER, WARM_UP, Execution, choose_execution, pick_device
from envs.spaces import Spaces
from envs.vector import make_vector


def timed(function: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of a call, measured one or more times, after calls that do not count."""
    timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds).times


def executions(config: BenchmarkConfig, device: torch.device) -> list[Execution]:
    """What to measure: eager in float32, then each mode in the run's precision."""
    available = ["eager", "compiled"] + ["captured"] * (device.type == "cuda")
    modes = available if config.modes is None else config.modes
    wanted = [choose_execution(mode, config.precision, device, 0.0) for mode in modes]
    return list(dict.fromkeys([EAGER, *wanted]))


def about(device: torch.device) -> dict[str, Any]:
    """When and where something was measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def name_of(execution: Execution) -> str:
    """As in "eager fp32"."""
    return f"{execution.mode} {'bf16' if execution.bf16 else 'fp32'}"


def line(*cells: object) -> str:
    """A line of a table: columns of 17 letters, numbers with four digits."""
    return " ".join(f"{f'{x:.4g}' if isinstance(x, float) else x!s:>17}" for x in cells)


def play(config: BenchmarkConfig, agent: Agent) -> dict[str, float]:
    """Environment steps a second, at random and by the policy."""
    n = config.collect.num_envs
    replay = Replay(ReplayConfig(capacity=1024 * n), n, agent.spaces, 0)
    envs, rates = make_vector(config.env, list(range(n))), {}
    try:
        collector = Collector(envs, agent, replay, 0.01)
        for name in ("random", "policy"):
            collector.collect(4 * n, random=name == "random")
            started, steps = perf_counter(), 0
            while perf_counter() - started < config.seconds:
                collector.collect(4 * n, random=name == "random")
                steps += 4 * n
            rates[name] = steps / (perf_counter() - started)
    finally:
        envs.close()
    return rates


def measure_environment(config: BenchmarkConfig, spaces: Spaces) -> dict[str, Any]:
    """Environment steps a second alone, with the policy on the CPU; printed too."""
    rates = play(config, Agent(config.agent, spaces).eval())
    print(line(config.env.name, *(f"{name} {rate:.0f}/s" for name, rate in rates.items())))
    return {"environment": config.env.name, "environment_steps_per_second": rates}


def measure_dreams(config: BenchmarkConfig, spaces: Spaces) -> dict[str, Any]:
    """Steps a second of dreams as long as the horizon, ending at different steps; printed too."""
    device, length = pick_device(config.device), config.agent.actor_critic.horizon
    agent = Agent(config.agent, spaces).eval().to(device)
    with torch.no_grad():  # an untrained world would end every second step
        agent.dynamics.end_head[-1].bias.copy_(torch.tensor([20.0, -20.0]))
    rows: list[dict[str, Any]] = []
    print(line("mode", "dreams", "steps/s", "ready s"))
    for execution in executions(config, device):
        for number in config.dreams:
            torch._dynamo.reset()  # it recompiles a function a few times only, for whatever size
            started = perf_counter()
            dreams = Dreams(agent, noisy_starts(agent), number, execution)
            env = DreamVectorEnv(dreams, max_episode_steps=length)
            env.action_space.seed(0)
            env.reset(seed=0)
            env.steps[:] = np.arange(number) % length
            for _ in range(max(length, WARM_UP[execution.mode])):
                env.step(env.action_space.sample())
            ready = perf_counter() - started
            # A mean: the steps at which episodes begin anew take longer.
            seconds = np.mean(timed(lambda e=env: e.step(e.action_space.sample()), config.seconds))
            row = {"mode": name_of(execution), "number": number}
            row |= {"steps_per_second": float(number / seconds), "ready_after": ready}
            rows.append(row)
            print(line(*row.values()), flush=True)
    return about(device) | {"episode_steps": length, "dreams": rows}


def noisy_starts(agent: Agent) -> StartStates:
    """64 starts with frames of noise, as many before a dream as the agent's burn-in."""
    spaces, steps = agent.spaces, agent.config.actor_critic.burn_in
    generator = np.random.default_rng(0)
    shape = (64, steps, spaces.size, spaces.size, spaces.channels)
    frames = generator.integers(256, size=shape, dtype=np.uint8)
    actions = generator.integers(spaces.actions, size=(64, steps - 1, len(spaces.actions)))
    return given_starts({"frames": frames, "actions": actions}, spaces)
