"""What a run's updates cost here: time, arithmetic, kernels, memory."""

from __future__ import annotations

import gc
import resource
from statistics import median
from time import perf_counter
from typing import Any

import torch

from agent.agent import Agent, sketch_agent
from agent.benchmark.config import BenchmarkConfig
from agent.benchmark.rates import play
from agent.benchmark.record import Recorder
from agent.benchmark.table import line
from agent.benchmark.timing import about, executions, matrix_product_rate, timed
from agent.data.prefetch import Prefetcher
from agent.data.replay import Replay
from agent.execution import choose_execution, pick_device
from agent.training.components import (
    PARTS,
    count_costs,
    make_learner,
    noise,
    sample_spec,
    steps_to_collect,
    synchronize,
    total_flop,
    total_updates,
)
from agent.training.learner import Learner
from agent.training.memory import Held
from agent.training.progress import duration
from envs.spaces import Spaces

COLUMNS = {  # heading -> key of a result, scale
    "ms/update": ("seconds_per_update", 1e3),
    "fastest": ("fastest", 1e3),
    "slowest": ("slowest", 1e3),
    "speed-up": ("speed_up", 1),
    "of peak": ("share_of_matrix_product_rate", 1),
    "kernels": ("kernels", 1),
    "kept GB": ("activations_gb", 1),
    "ready s": ("ready_after", 1),
}


def measure_update(
    config: BenchmarkConfig, agent: Agent, part: str, learner: Learner
) -> dict[str, Any]:
    """An update of a part, in one mode.

    Returns:
        Seconds of an update and until the first that is measured, kernels launched (counted only
        eagerly), and gigabytes kept for the backward pass.
    """
    device, started = learner.device, perf_counter()
    segment = noise(agent, config, part)
    if device.type == "cuda":
        gc.collect()  # of the mode before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(learner.warm_up):
        learner.update(segment)
    synchronize(device)
    ready = perf_counter() - started
    times = timed(lambda: learner.update(segment), config.seconds)
    learner.module.train()
    with Held() as held:
        learner.forward(segment)
    learner.module.eval()
    kernels = None
    if learner.execution.mode == "eager":
        with Recorder() as recorder:
            learner.update(segment)
        kernels = len(recorder.operations)
    result = {
        "mode": learner.execution.mode,
        "precision": "bf16" if learner.execution.bf16 else "fp32",
        "seconds_per_update": median(times),
        "fastest": min(times),
        "slowest": max(times),
        "kernels": kernels,
        "activations_gb": held.bytes / 1e9,
        "ready_after": ready,
    }
    if device.type == "cuda":
        result["peak_device_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return result


def share_waiting(
    config: BenchmarkConfig, replay: Replay, part: str, learner: Learner, seconds: float
) -> float:
    """Share of the time that updates wait for data. seconds: of an update, which has run before."""
    prefetcher, started = Prefetcher(learner.device), perf_counter()
    spec, count = sample_spec(config, part), max(3, round(config.seconds / seconds))
    for segment in prefetcher.segments(lambda: replay.sample(part, *spec), count, lambda: True):
        learner.update(segment)
    synchronize(learner.device)
    return prefetcher.waited / (perf_counter() - started)


def measure_run(config: BenchmarkConfig, spaces: Spaces) -> dict[str, Any]:
    """Measure each part in each mode and the environment, print it, and return it for JSON."""
    device = pick_device(config.device)
    costs = count_costs(sketch_agent(config.agent, spaces), config)
    total = total_flop(costs, config)
    chosen = choose_execution(config.learner.mode, config.precision, device, total)
    modes = executions(config, device, chosen)
    peaks = {
        bf16: matrix_product_rate(device, config.seconds / 4, bf16)
        for bf16 in {execution.bf16 for execution in modes}
    }
    agent = Agent(config.agent, spaces).eval().to(device)
    result = about(device) | {
        "parameters": agent.num_parameters(),
        "matrix_product_gflop_per_second": {
            "bf16" if bf16 else "fp32": rate / 1e9 for bf16, rate in peaks.items()
        },
        "training_uses": f"{chosen.mode} {'bf16' if chosen.bf16 else 'fp32'}",
        "parts": {},
    }
    print(f"{config.experiment} on {result['device']} ({result['machine']})")
    print("matrix product, GFLOP/s:", result["matrix_product_gflop_per_second"])
    print(line("part", "GFLOP", "mode", *COLUMNS))
    played, replay = play(config, agent)
    for part in PARTS:
        torch._dynamo.reset()  # it recompiles a function a few times only, for whatever part
        rows: list[dict[str, Any]] = []
        for execution in modes:
            learner = make_learner(agent, config, part, execution)
            row = measure_update(config, agent, part, learner)
            seconds = row["seconds_per_update"]
            rows.append(row)
            row["speed_up"] = rows[0]["seconds_per_update"] / seconds
            row["share_of_matrix_product_rate"] = costs[part].flop / seconds / peaks[execution.bf16]
            cells = [row[key] and scale * row[key] for key, scale in COLUMNS.values()]
            mode = f"{row['mode']} {row['precision']}"
            print(line(part, costs[part].flop / 1e9, mode, *cells), flush=True)
            if execution == chosen:
                waiting = share_waiting(config, replay, part, learner, seconds)
                updates = total_updates(config, part)
                own = {"hours": updates * seconds / 3600, "share_waiting": waiting}
        batch, steps, _ = sample_spec(config, part)
        result["parts"][part] = own | {
            "batch": batch,
            "steps": steps,
            "gflop": costs[part].flop / 1e9,
            "updates": updates,
            "petaflop": updates * costs[part].flop / 1e15,
            "modes": rows,
        }
        print(
            f"{part}: {updates:,} updates as training runs them take "
            f"{duration(3600 * own['hours'])} and wait for data {own['share_waiting']:.1%} of it"
        )
    return result | totals(config, result["parts"], played)


def totals(
    config: BenchmarkConfig, parts: dict[str, Any], played: dict[str, float]
) -> dict[str, Any]:
    """What the whole run costs, evaluations aside; printed too."""
    steps, first = steps_to_collect(config), config.collect.first_steps
    playing = first / played["random"] + (steps - first) / played["policy"]
    imagined = config.agent.actor_critic.horizon * config.policy.batch * parts["policy"]["updates"]
    a_step = config.agent.actor_critic.horizon * config.policy.batch
    result = {
        "environment_steps": steps,
        "environment_steps_per_second": played,
        "imagined_steps": imagined,
        "gflop_per_imagined_step": parts["policy"]["gflop"] / a_step,
        "hours": sum(part["hours"] for part in parts.values()) + playing / 3600,
        "petaflop": sum(part["petaflop"] for part in parts.values()),
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(
        f"{imagined:,} imagined steps, {1e3 * result['gflop_per_imagined_step']:,.0f} MFLOP each\n"
        f"{steps:,} environment steps, {played['random']:.0f} a second at random, "
        f"{played['policy']:.0f} with the policy\n"
        f"the whole run, evaluations aside: {duration(3600 * result['hours'])}, "
        f"{result['petaflop']:.3g} PFLOP, {result['peak_memory_gb']:.2f} GB of memory"
    )
    return result
