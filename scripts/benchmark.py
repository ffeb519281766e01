"""What an experiment costs here: python scripts/benchmark.py experiment=crafter_quick [key=value …].

Per part: seconds an update (median and spread), its arithmetic, and the share of the rate at which this machine
multiplies matrices, measured in the same run; environment steps a second; memory; and the hours that follow.
"""

import datetime
import json
import platform
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from agent.agent import Agent
from agent.checks import check_config, pick_device
from agent.cli import command
from agent.collect import Collector
from agent.learner import Learner
from agent.replay import Replay, ReplayConfig
from agent.run import environment_sizes
from agent.segment import Segment
from agent.config import TrainConfig
from envs.errors import BadInput
from envs.vector import make_vector


@dataclass
class BenchmarkConfig(TrainConfig):
    """seconds: to spend on each measurement, at least (an update is measured twice, however long it takes)
    output:  where to write the result as JSON; null: nowhere
    """

    seconds: float = 10.0
    output: str | None = None


def repeat(function: Callable[[], object], seconds: float, device: torch.device) -> list[float]:
    """The seconds that each call took, after one that is not counted: two calls or more."""
    times: list[float] = []
    function()
    while len(times) < 2 or sum(times) < seconds:
        started = perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - started)
    return times


def matrix_product_rate(device: torch.device, seconds: float) -> float:
    """Floating-point operations a second of a float32 matrix product of 2048 × 2048."""
    a = torch.randn(2048, 2048, device=device)
    return 2 * 2048**3 / median(repeat(lambda: a @ a, seconds, device))


def random_segment(batch: int, steps: int, num_actions: int, image_size: int) -> Segment:
    """Noise in the shape of a batch; the time of an update does not depend on what it sees."""
    return Segment(
        frames=torch.randint(0, 256, (batch, steps, 3, image_size, image_size), dtype=torch.uint8),
        actions=torch.randint(0, num_actions, (batch, steps)),
        rewards=torch.zeros(batch, steps),
        terminated=torch.zeros(batch, steps, dtype=torch.bool),
        truncated=torch.zeros(batch, steps, dtype=torch.bool),
        mask=torch.ones(batch, steps, dtype=torch.bool),
        batch_size=[batch, steps],
    )


def collection_rate(config: BenchmarkConfig, agent: Agent, random: bool) -> float:
    """Environment steps a second into a small replay, by random actions or by the policy."""
    n = config.collect.num_envs
    frame_shape = (3, agent.image_size, agent.image_size)
    envs = make_vector(config.env, list(range(n)))
    try:
        collector = Collector(envs, agent, Replay(ReplayConfig(capacity=64 * n), n, frame_shape, 0), 0.01)
        collector.collect(4 * n, random)
        started, steps = perf_counter(), 0
        while perf_counter() - started < config.seconds:
            collector.collect(4 * n, random)
            steps += 4 * n
        return steps / (perf_counter() - started)
    finally:
        envs.close()


def main(config: BenchmarkConfig, overrides: list[str]) -> None:
    check_config(config)
    if not 0 < config.seconds < float("inf"):
        raise BadInput(f"seconds={config.seconds} was given; give more than 0, and a finite number.")
    device = pick_device(config.device)
    agent = Agent(config.agent, *environment_sizes(config.env, config.seed)).eval().to(device)
    peak = matrix_product_rate(device, config.seconds / 2)
    result = {
        "experiment": config.experiment,
        "overrides": overrides,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "parameters": agent.num_parameters(),
        "matrix_product_gflop_per_second": peak / 1e9,
        "parts": {},
    }
    print(f"{config.experiment} on {result['device']} ({result['machine']}), matrix product {peak / 1e9:.0f} GFLOP/s")
    print(f"{'part':<10} {'batch':>9} {'s/update':>9} {'spread':>15} {'GFLOP':>9} {'GFLOP/s':>8} {'of peak':>8} {'hours':>8}")
    total = 0.0
    for part, steps in (
        ("tokenizer", config.tokenizer.steps),
        ("dynamics", config.dynamics.steps),
        ("policy", config.agent.actor_critic.burn_in),
    ):
        schedule = getattr(config, part)
        before_step = agent.update_target if part == "policy" else None
        learner = Learner(getattr(agent, part), getattr(agent, f"{part}_loss"), schedule, before_step)
        segment = random_segment(schedule.batch, steps, agent.num_actions, agent.image_size).to(device)
        with FlopCounterMode(display=False) as counter:
            learner.update(segment)
        flop = counter.get_total_flops()
        times = repeat(lambda learner=learner, segment=segment: learner.update(segment), config.seconds, device)
        seconds = median(times)
        hours = sum(schedule.updates_in(epoch) for epoch in range(config.epochs)) * seconds / 3600
        total += hours
        result["parts"][part] = {
            "batch": schedule.batch, "steps": steps, "seconds_per_update": seconds,
            "fastest": min(times), "slowest": max(times), "gflop": flop / 1e9,
            "share_of_matrix_product_rate": flop / seconds / peak, "hours": hours,
        }  # fmt: skip
        print(
            f"{part:<10} {f'{schedule.batch} x {steps}':>9} {seconds:>9.4f} {f'{min(times):.4f}-{max(times):.4f}':>15} "
            f"{flop / 1e9:>9.1f} {flop / seconds / 1e9:>8.1f} {flop / seconds / peak:>8.0%} {hours:>8.2f}"
        )
    random, policy = (collection_rate(config, agent, random) for random in (True, False))
    hours = (config.collect.first_steps / random + config.collect.steps * (config.collect.epochs - 1) / policy) / 3600
    total += hours
    result |= {
        "environment_steps_per_second": {"random": random, "policy": policy},
        "hours": total,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    if device.type == "cuda":
        result["peak_device_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    print(f"environment steps a second: {random:.0f} random, {policy:.0f} with the policy ({hours:.2f} hours)")
    print(f"peak memory {result['peak_memory_gb']:.2f} GB; the whole experiment, evaluation aside: {total:.2f} hours")
    if config.output:
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        Path(config.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    command("benchmark", BenchmarkConfig, main)
