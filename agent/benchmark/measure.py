"""What a run's updates cost here."""

from __future__ import annotations

import resource
from statistics import median
from time import perf_counter
from typing import Any

import torch

from agent.agent import Agent, sketch_agent
from agent.benchmark.config import BenchmarkConfig
from agent.benchmark.rates import play
from agent.benchmark.timing import about, executions, line, matrix_product_rate, precision_of, timed
from agent.execution import choose_execution, pick_device
from agent.training.components import (
    PARTS,
    count_costs,
    make_learner,
    noise,
    steps_to_collect,
    synchronize,
    total_flop,
    total_updates,
)
from agent.training.learner import Learner
from agent.training.progress import duration
from envs.spaces import Spaces


def measure_run(config: BenchmarkConfig, spaces: Spaces) -> dict[str, Any]:
    """Measure each part in each mode and the environment, print it, and return it for JSON."""
    device = pick_device(config.device)
    costs = count_costs(sketch_agent(config.agent, spaces), config)
    chosen = choose_execution(
        config.learner.mode, config.precision, device, total_flop(costs, config)
    )
    modes = list(dict.fromkeys([*executions(config, device), chosen]))
    peaks = {
        name: matrix_product_rate(device, config.seconds / 4, name == "bf16")
        for name in sorted({precision_of(execution) for execution in modes})
    }
    agent = Agent(config.agent, spaces).eval().to(device)
    result = about(device) | {
        "parameters": agent.num_parameters(),
        "matrix_product_gflop_per_second": {name: rate / 1e9 for name, rate in peaks.items()},
        "training_uses": f"{chosen.mode} {precision_of(chosen)}",
    }
    print(f"{config.experiment} on {result['device']} ({result['machine']})")
    print("matrix product, GFLOP/s:", result["matrix_product_gflop_per_second"])
    print(line("part", "GFLOP", "mode", "ms/update", "speed-up", "of peak", "ready s"))
    parts: dict[str, Any] = {}
    for part in PARTS:
        torch._dynamo.reset()  # it recompiles a function a few times only, for whatever part
        flop, updates = costs[part].flop, total_updates(config, part)
        parts[part] = {"gflop": flop / 1e9, "updates": updates, "modes": []}
        for execution in modes:
            learner = make_learner(agent, config, part, execution)
            row = measure_update(config, agent, part, learner)
            parts[part]["modes"].append(row)
            seconds, precision = row["seconds_per_update"], row["precision"]
            row["speed_up"] = parts[part]["modes"][0]["seconds_per_update"] / seconds
            row["share_of_matrix_product_rate"] = flop / seconds / peaks[precision]
            cells = row["speed_up"], row["share_of_matrix_product_rate"], row["ready_after"]
            mode = f"{row['mode']} {precision}"
            print(line(part, flop / 1e9, mode, 1e3 * seconds, *cells), flush=True)
            if execution == chosen:
                parts[part]["hours"] = updates * seconds / 3600
        took = duration(3600 * parts[part]["hours"])
        print(f"{part}: {updates:,} updates as training runs them take {took}")
    return result | {"parts": parts} | whole_run(config, parts, play(config, agent))


def measure_update(
    config: BenchmarkConfig, agent: Agent, part: str, learner: Learner
) -> dict[str, Any]:
    """An update of a part in one mode: its seconds, and seconds until the first is ready."""
    device, started = learner.device, perf_counter()
    segment = noise(agent, config, part)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of the mode before
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(learner.warm_up):
        learner.update(segment)
    synchronize(device)
    ready = perf_counter() - started
    result = {
        "mode": learner.execution.mode,
        "precision": precision_of(learner.execution),
        "seconds_per_update": median(timed(lambda: learner.update(segment), config.seconds)),
        "ready_after": ready,
    }
    if device.type == "cuda":
        result["peak_device_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return result


def whole_run(
    config: BenchmarkConfig, parts: dict[str, Any], played: dict[str, float]
) -> dict[str, Any]:
    """What the whole run costs, evaluations aside; printed too."""
    steps, first = steps_to_collect(config), config.collect.first_steps
    playing = first / played["random"] + (steps - first) / played["policy"]
    imagined = config.agent.actor_critic.horizon * config.policy.batch
    result = {
        "environment_steps": steps,
        "environment_steps_per_second": played,
        "imagined_steps": imagined * parts["policy"]["updates"],
        "gflop_per_imagined_step": parts["policy"]["gflop"] / imagined,
        "hours": sum(part["hours"] for part in parts.values()) + playing / 3600,
        "petaflop": sum(part["updates"] * part["gflop"] for part in parts.values()) / 1e6,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(
        f"{result['imagined_steps']:,} imagined steps, "
        f"{1e3 * result['gflop_per_imagined_step']:,.0f} MFLOP each\n"
        f"{steps:,} environment steps, {played['random']:.0f} a second at random, "
        f"{played['policy']:.0f} with the policy\n"
        f"the whole run, evaluations aside: {duration(3600 * result['hours'])}, "
        f"{result['petaflop']:.3g} PFLOP, {result['peak_memory_gb']:.2f} GB of memory"
    )
    return result
