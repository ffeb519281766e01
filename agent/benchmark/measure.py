"""What a run's updates cost here."""

from __future__ import annotations

import resource
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch

from agent.agent import Agent, sketch_agent
from agent.benchmark.config import BenchmarkConfig
from agent.benchmark.rates import about, executions, line, name_of, play, timed
from agent.execution import choose_execution, pick_device
from agent.training import components
from agent.training.components import PARTS
from agent.training.costs import count_costs, noise, synchronize, total_flop
from agent.training.progress import duration
from envs.spaces import Spaces


def measure_run(config: BenchmarkConfig, spaces: Spaces) -> dict[str, Any]:
    """Measure each part in each mode and the environment, print it, and return it for JSON."""
    device = pick_device(config.device)
    costs = count_costs(sketch_agent(config.agent, spaces), config)
    total = total_flop(costs, config)
    chosen = choose_execution(config.learner.mode, config.precision, device, total)
    modes = list(dict.fromkeys([*executions(config, device), chosen]))
    peaks = {
        bf16: matrix_product_rate(device, config.seconds / 4, bf16)
        for bf16 in sorted({execution.bf16 for execution in modes})
    }
    agent = Agent(config.agent, spaces).eval().to(device)
    result = about(device) | {
        "parameters": agent.num_parameters(),
        "matrix_product_gflop_per_second": {
            "bf16" if bf16 else "fp32": rate / 1e9 for bf16, rate in peaks.items()
        },
        "training_uses": name_of(chosen),
    }
    print(f"{config.experiment} on {result['device']} ({result['machine']})")
    print("matrix product, GFLOP/s:", result["matrix_product_gflop_per_second"])
    print(line("part", "GFLOP", "mode", "ms/update", "speed-up", "of peak", "ready s"))
    parts: dict[str, Any] = {}
    for part in PARTS:
        torch._dynamo.reset()  # it recompiles a function a few times only, for whatever part
        flop, updates = costs[part].flop, components.total_updates(config, part)
        rows: list[dict[str, Any]] = []
        parts[part] = {"gflop": flop / 1e9, "updates": updates, "modes": rows}
        for execution in modes:
            learner = components.make_learner(agent, config, part, execution)
            segment, started = noise(agent, config, part), perf_counter()
            for _ in range(learner.warm_up):
                learner.update(segment)
            synchronize(device)
            ready = perf_counter() - started
            seconds = median(timed(partial(learner.update, segment), config.seconds))
            row = {"mode": name_of(execution), "seconds_per_update": seconds}
            rows.append(row)
            row["speed_up"] = rows[0]["seconds_per_update"] / seconds
            row["share_of_matrix_product_rate"] = flop / seconds / peaks[execution.bf16]
            row["ready_after"] = ready
            if device.type == "cuda":
                row["peak_device_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
                torch.cuda.reset_peak_memory_stats(device)
            mode, _, *others = row.values()
            print(line(part, flop / 1e9, mode, 1e3 * seconds, *others), flush=True)
            if execution == chosen:
                parts[part]["hours"] = updates * seconds / 3600
        took = duration(3600 * parts[part]["hours"])
        print(f"{part}: {updates:,} updates as training runs them take {took}")
    return result | {"parts": parts} | whole_run(config, parts, play(config, agent))


def matrix_product_rate(device: torch.device, seconds: float, bf16: bool) -> float:
    """Floating-point operations a second of a matrix product of 4096 × 4096."""
    a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    return 2 * 4096**3 / median(timed(lambda: a @ a, seconds))


def whole_run(
    config: BenchmarkConfig, parts: dict[str, Any], played: dict[str, float]
) -> dict[str, Any]:
    """What the whole run costs, evaluations aside; printed too."""
    steps, first = components.steps_to_collect(config), config.collect.first_steps
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
