"""What an experiment costs here: python scripts/benchmark.py experiment=crafter_quick [key=value …].

Per part and mode of the learner: milliseconds an update (median and spread), its arithmetic and the share of the rate
at which this machine multiplies matrices, measured in the same run, kernels launched, and the share of the time that
updates wait for data; environment steps a second; memory; and how the whole experiment spends its hours and arithmetic.

--estimate (or estimate=true): for cards that are not here, from the recorded operations.
dream=true: instead, steps a second of the experiment's world as an environment, of each mode.
"""

import datetime
import gc
import json
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch._inductor.codecache import PyCodeCache

from agent.agent import Agent, sketch_agent
from agent.checks import check_config, check_writable, pick_device
from agent.cli import command
from agent.collect import Collector
from agent.config import TrainConfig
from agent.cost import CARDS, PUBLISHED, Held, Operation, Recorder, check_against_published, compiled_launches, estimate
from agent.cost import optimizer_operations, without_elementwise
from agent.dreams import Dreams, given_starts
from agent.execution import WARM_UP, Execution, choose_execution
from agent.feeding import Feed
from agent.learner import Learner
from agent.multirun import expand
from agent.parts import PARTS, count_costs, make_learner, noise, steps_to_collect, synchronize, total_flop, total_updates, window
from agent.progress import duration
from agent.replay import Replay, ReplayConfig
from agent.run import spaces_of
from agent.segment import Segment
from agent.starts import Starts
from envs.dream import DreamVectorEnv
from envs.errors import BadInput
from envs.spaces import Spaces
from envs.vector import make_vector


@dataclass
class BenchmarkConfig(TrainConfig):
    """seconds: to spend on each measurement, at least (an update is measured twice, however long it takes)
    modes:    of the learner to measure, besides the base line, eager in float32; null: all that this device has
    updates:  false: only play the environment, which takes `seconds` twice
    estimate: for cards that are not here, instead of measuring
    dream:    measure only the world as an environment (envs/dream.py), untrained, in batches of `dreams` episodes
    output:   where to write the result as JSON; null: nowhere
    roofline: where to draw the parts against this machine's arithmetic and memory, as PNG; null: nowhere
    """

    seconds: float = 10.0
    modes: list[str] | None = None
    updates: bool = True
    estimate: bool = False
    dream: bool = False
    dreams: list[int] = field(default_factory=lambda: [1, 16, 256])
    output: str | None = None
    roofline: str | None = None


BASE = Execution("eager", bf16=False)


def repeat(function: Callable[[], object], seconds: float, device: torch.device) -> list[float]:
    """The seconds that each call took, after one that is not counted: two calls or more."""
    times: list[float] = []
    function()
    synchronize(device)
    while len(times) < 2 or sum(times) < seconds:
        started = perf_counter()
        function()
        synchronize(device)
        times.append(perf_counter() - started)
    return times


def matrix_product_rate(device: torch.device, seconds: float, bf16: bool) -> float:
    """Floating-point operations a second of a matrix product of 4096 × 4096."""
    a = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    return 2 * 4096**3 / median(repeat(lambda: a @ a, seconds, device))


def memory_bandwidth(device: torch.device, seconds: float) -> float:
    """Bytes a second that a copy of half a gigabyte reads and writes."""
    a = torch.ones(2**27, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / median(repeat(lambda: b.copy_(a), seconds, device))


def launches(learner: Learner, segment: Segment, files: set[str]) -> int:
    """Operations that launch kernels in an update that has run before. files: of Inductor's code, before it ran."""
    if learner.execution.mode == "eager":
        with Recorder() as recorder:
            learner.update(segment)
        return len(recorder)
    with Recorder() as recorder:
        learner.step()
    return len(recorder) + sum(compiled_launches(Path(path).read_text()) for path in generated() - files)


def generated() -> set[str]:
    """Files of Inductor's code that are loaded."""
    return {module.__file__ for module in PyCodeCache.modules if module.__file__}


def measure(config: BenchmarkConfig, agent: Agent, part: str, learner: Learner) -> dict[str, Any]:
    """An update of `part`: its seconds, kernels, and the seconds until it was ready."""
    device, execution, files, started = agent.device, learner.execution, generated(), perf_counter()
    segment = noise(agent, config, part)
    if device.type == "cuda":
        gc.collect()  # of the learner before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(learner.warm_up):
        learner.update(segment)
    synchronize(device)
    ready = perf_counter() - started
    times = repeat(lambda: learner.update(segment), config.seconds, device)
    learner.module.train()
    with Held() as held:
        learner.forward(segment)
    learner.module.eval()
    result = {
        "mode": execution.mode, "precision": "bf16" if execution.bf16 else "fp32", "seconds_per_update": median(times),
        "fastest": min(times), "slowest": max(times), "launches": launches(learner, segment, files), "ready_after": ready,
        "activations_gb": held.bytes / 1e9,
    }  # fmt: skip
    if device.type == "cuda":
        result["peak_device_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return result


def waiting(config: BenchmarkConfig, agent: Agent, replay: Replay, part: str, learner: Learner, seconds: float) -> float:
    """Share of the time that updates wait for data. seconds: that an update takes; it has run before"""
    batch, steps, anchor = window(config, part)
    feed, started = Feed(agent.device), perf_counter()
    count = max(3, round(config.seconds / seconds))
    for segment in feed.segments(lambda: replay.sample(part, batch, steps, anchor), count, ahead=lambda: True):
        learner.update(segment)
    synchronize(agent.device)
    return feed.waited / (perf_counter() - started)


def play(config: BenchmarkConfig, agent: Agent) -> tuple[dict[str, float], Replay]:
    """Environment steps a second, by random actions and by the policy, and a small replay of them."""
    n = config.collect.num_envs
    replay = Replay(ReplayConfig(capacity=1024 * n), n, agent.spaces, 0)
    envs, rates = make_vector(config.env, list(range(n))), {}
    try:
        collector = Collector(envs, agent, replay, 0.01)
        for name, random in (("random", True), ("policy", False)):
            collector.collect(4 * n, random)
            started, steps = perf_counter(), 0
            while perf_counter() - started < config.seconds:
                collector.collect(4 * n, random)
                steps += 4 * n
            rates[name] = steps / (perf_counter() - started)
    finally:
        envs.close()
    return rates, replay


def playing(config: BenchmarkConfig) -> dict[str, Any]:
    """Environment steps a second alone, on the CPU."""
    rates, _ = play(config, Agent(config.agent, spaces_of(config.env, config.seed)).eval())
    print(f"{config.env.name:<40} {rates['random']:8.0f} steps a second at random, {rates['policy']:8.0f} with the policy", flush=True)
    return {"environment": config.env.id, "game": config.env.game, "environment_steps_per_second": rates}


def dreaming(config: BenchmarkConfig, overrides: list[str]) -> dict[str, Any]:
    """Steps a second of dreams whose episodes are as long as the horizon and end at different steps."""
    device, length = pick_device(config.device), config.agent.actor_critic.horizon
    agent = Agent(config.agent, spaces_of(config.env, config.seed)).eval().to(device)
    with torch.no_grad():  # an untrained world would end every second step
        agent.dynamics.end_head[-1].bias.copy_(torch.tensor([20.0, -20.0]))
    chosen = choose_execution("auto", config.precision, device, 0.0, key="mode")
    result = about(config, overrides, device) | {"episode_steps": length, "dreams": []}
    print(f"Dreams of {config.experiment} on {result['device']} ({result['machine']}), episodes of {length} steps")
    print(f"{'dreams':>6} {'mode':>14} {'steps/s':>9} {'ms/step':>8} {'ready s':>7}")
    for execution in executions(config, device, chosen):
        for number in config.dreams:
            torch._dynamo.reset()  # it recompiles a function a few times only, for whatever size
            started = perf_counter()
            dreams = DreamVectorEnv(Dreams(agent, noisy_starts(agent), number, execution), max_episode_steps=length)
            dreams.action_space.seed(0)
            dreams.reset(seed=0)
            dreams.steps[:] = np.arange(number) % length
            for _ in range(max(length, WARM_UP[execution.mode])):
                dreams.step(dreams.action_space.sample())
            ready = perf_counter() - started
            times = repeat(lambda: dreams.step(dreams.action_space.sample()), config.seconds, device)
            row = {
                "mode": execution.mode, "precision": "bf16" if execution.bf16 else "fp32", "number": number,
                "steps_per_second": number * len(times) / sum(times), "ready_after": ready,
            }  # fmt: skip
            result["dreams"].append(row)
            print(
                f"{number:>6} {execution.mode + ' ' + row['precision']:>14} {row['steps_per_second']:>9.0f} "
                f"{1e3 * sum(times) / len(times):>8.2f} {ready:>7.1f}",
                flush=True,
            )
    return result


def noisy_starts(agent: Agent) -> Starts:
    """Frames of noise, as many before a dream as an agent's burn-in."""
    spaces, past, generator = agent.spaces, agent.config.actor_critic.burn_in, np.random.default_rng(0)
    frames = generator.integers(256, size=(64, past, spaces.size, spaces.size, spaces.channels), dtype=np.uint8)
    actions = generator.integers(spaces.actions, size=(64, past - 1, len(spaces.actions)))
    return given_starts(agent, {"frames": frames, "actions": actions})


def about(config: BenchmarkConfig, overrides: list[str], device: torch.device) -> dict[str, Any]:
    """What was measured, when and where."""
    return {
        "experiment": config.experiment,
        "overrides": overrides,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def executions(config: BenchmarkConfig, device: torch.device, chosen: Execution) -> list[Execution]:
    """What to measure: the base line, then each mode in the precision of the configuration, the chosen one always."""
    every = ["eager", "compiled"] + ["captured"] * (device.type == "cuda")
    names = every if config.modes is None else config.modes
    wanted = [BASE, *(choose_execution(mode, config.precision, device, 0.0) for mode in names), chosen]
    return list(dict.fromkeys(wanted))


def benchmark(config: BenchmarkConfig, overrides: list[str]) -> dict[str, Any]:
    device = pick_device(config.device)
    spaces = spaces_of(config.env, config.seed)
    costs = count_costs(sketch_agent(config.agent, spaces), config)
    total = total_flop(costs, config)
    chosen = choose_execution(config.learner.mode, config.precision, device, total)
    wanted = executions(config, device, chosen)
    peaks = {bf16: matrix_product_rate(device, config.seconds / 4, bf16) for bf16 in {False, chosen.bf16}}
    agent = Agent(config.agent, spaces).eval().to(device)
    result = about(config, overrides, device) | {
        "parameters": agent.num_parameters(),
        "matrix_product_gflop_per_second": {"bf16" if bf16 else "fp32": rate / 1e9 for bf16, rate in peaks.items()},
        "training_uses": f"{chosen.mode} {'bf16' if chosen.bf16 else 'fp32'}",
        "parts": {},
    }
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in result["matrix_product_gflop_per_second"].items())
    print(f"{config.experiment} on {result['device']} ({result['machine']}), matrix product GFLOP/s: {rates}")
    print(
        f"{'part':<10} {'batch':>9} {'GFLOP':>8} {'mode':>14} {'ms/update':>10} {'spread':>15} {'speed-up':>8} "
        f"{'of peak':>7} {'kernels':>7} {'kept GB':>7} {'ready s':>7}"
    )
    played, replay = play(config, agent)
    hours = 0.0
    for part in PARTS:
        batch, steps, _ = window(config, part)
        torch._dynamo.reset()  # it recompiles a function a few times only, for whatever part
        rows, own = [], None
        for execution in wanted:
            learner = make_learner(agent, config, part, execution)
            rows.append(measure(config, agent, part, learner))
            if execution == chosen:
                own, own_seconds = learner, rows[-1]["seconds_per_update"]
            if execution.mode == "captured":  # what it has compiled, the compiled one has loaded
                same = (row for row in rows if row["mode"] == "compiled" and row["precision"] == rows[-1]["precision"])
                rows[-1]["launches"] = next(same, rows[-1])["launches"]
        for row in rows:
            row["speed_up"] = rows[0]["seconds_per_update"] / row["seconds_per_update"]
            peak = peaks.get(row["precision"] == "bf16") or matrix_product_rate(device, config.seconds / 4, True)
            row["share_of_matrix_product_rate"] = costs[part].flop / row["seconds_per_update"] / peak
            mode = f"{row['mode']} {row['precision']}"
            spread = f"{row['fastest'] * 1e3:.1f}-{row['slowest'] * 1e3:.1f}"
            print(
                f"{part:<10} {f'{batch} x {steps}':>9} {costs[part].flop / 1e9:>8.1f} {mode:>14} "
                f"{row['seconds_per_update'] * 1e3:>10.1f} {spread:>15} {row['speed_up']:>8.2f} "
                f"{row['share_of_matrix_product_rate']:>7.0%} {row['launches']:>7} {row['activations_gb']:>7.2f} {row['ready_after']:>7.1f}",
                flush=True,
            )
        updates = total_updates(config, part)
        part_hours, part_flop = updates * own_seconds / 3600, updates * costs[part].flop
        hours += part_hours
        waited = waiting(config, agent, replay, part, own, own_seconds)
        result["parts"][part] = {
            "batch": batch, "steps": steps, "gflop": costs[part].flop / 1e9, "updates": updates, "petaflop": part_flop / 1e15,
            "hours": part_hours, "share_waiting": waited, "modes": rows,
        }  # fmt: skip
        print(
            f"{part:<10} {updates:,} updates as training would run them: {duration(3600 * part_hours)}, "
            f"{part_flop / 1e15:.3g} PFLOP ({part_flop / max(total, 1):.0%}); waits for data {waited:.1%} of the time"
        )
    collect = config.collect
    steps, horizon = steps_to_collect(config), config.agent.actor_critic.horizon
    playing = (collect.first_steps / played["random"] + (steps - collect.first_steps) / played["policy"]) / 3600
    imagined = horizon * config.policy.batch * total_updates(config, "policy")
    a_step = costs["policy"].flop / (horizon * config.policy.batch)
    result |= {
        "environment_steps": steps,
        "imagined_steps": imagined,
        "gflop_per_imagined_step": a_step / 1e9,
        "environment_steps_per_second": played,
        "hours": hours + playing,
        "petaflop": total / 1e15,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(
        f"imagined steps: {imagined:,}, each {a_step / 1e6:,.0f} MFLOP, to burn in and to learn included; "
        f"{imagined / steps:.0f} for each step of the environment"
    )
    print(
        f"environment steps: {steps:,}; {played['random']:.0f} a second at random, {played['policy']:.0f} with the policy "
        f"({duration(3600 * playing)})"
    )
    print(
        f"peak memory {result['peak_memory_gb']:.2f} GB; the whole experiment, evaluation aside: "
        f"{duration(3600 * result['hours'])}, {result['petaflop']:.3g} PFLOP"
    )
    if config.roofline:
        bandwidth = memory_bandwidth(device, config.seconds / 4)
        result["copy_gigabytes_per_second"] = bandwidth / 1e9
        draw_roofline(result, record(config, spaces), bandwidth, Path(config.roofline))
    return result


def draw_roofline(result: dict[str, Any], recordings: dict[str, list[Operation]], bandwidth: float, path: Path) -> None:
    """Each part and mode: operations a second over operations a byte, under what the machine can do."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    intensities = [10 ** (i / 10) for i in range(0, 31)]
    for name, rate in result["matrix_product_gflop_per_second"].items():
        axes.plot(intensities, [min(rate, x * bandwidth / 1e9) for x in intensities], label=f"this machine, {name}")
    for part, measured in result["parts"].items():
        intensity = measured["gflop"] * 1e9 / sum(operation.bytes for operation in recordings[part])
        for row, marker in zip(measured["modes"], "osD^"):
            axes.scatter([intensity], [measured["gflop"] / row["seconds_per_update"]], marker=marker, color="black")
        place = (intensity, measured["gflop"] / measured["modes"][0]["seconds_per_update"])
        axes.annotate(part, place, xytext=(6, -12), textcoords="offset points")
    shown = ", ".join(f"{row['mode']} {row['precision']}" for row in measured["modes"])
    axes.set(
        xscale="log", yscale="log", ylabel="GFLOP/s", title=f"{result['experiment']}, bottom to top: {shown}",
        xlabel="floating-point operations a byte, as the eager operations in float32 read and write them",
    )  # fmt: skip
    axes.title.set_fontsize(9)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=120, bbox_inches="tight")


def record(config: BenchmarkConfig, spaces: Spaces) -> dict[str, list[Operation]]:
    """The operations of an update of each part, at full size, on the meta device."""
    recordings = {}
    for part in PARTS:
        agent = sketch_agent(config.agent, spaces)
        loss, segment = getattr(agent, f"{part}_loss"), noise(agent, config, part)
        with Recorder() as recorder:
            loss(segment)["loss"].backward()
        parameters = sum(p.numel() for p in getattr(agent, part).parameters())
        recordings[part] = recorder.operations + optimizer_operations(parameters)
    return recordings


def estimate_cards(config: BenchmarkConfig) -> dict[str, Any]:
    spaces = spaces_of(config.env, config.seed)
    recordings, costs = record(config, spaces), count_costs(sketch_agent(config.agent, spaces), config)
    result: dict[str, Any] = {"experiment": config.experiment, "date": datetime.date.today().isoformat(), "cards": {}}
    print("Estimated milliseconds an update: eager / captured / captured and compiled. Nothing of this was measured.")
    for name, card in CARDS.items():
        for precision in ("bf16", "fp32"):
            row = {
                part: {
                    "eager": 1e3 * estimate(operations, card, precision, captured=False),
                    "captured": 1e3 * estimate(operations, card, precision, captured=True),
                    "compiled": 1e3 * estimate(without_elementwise(operations), card, precision, captured=True),
                }
                for part, operations in recordings.items()
            }  # fmt: skip
            seconds = sum(row[part]["compiled"] * total_updates(config, part) for part in PARTS) / 1e3
            result["cards"][f"{name} {precision}"] = row | {"hours_of_updates": seconds / 3600}
            parts = "  ".join(f"{part} {' /'.join(f'{ms:6.1f}' for ms in row[part].values())}" for part in PARTS)
            print(f"{name:<9} {precision}  {parts}  all updates, at best {duration(seconds)}")
    result["recorded"] = {
        part: {
            "operations": len(ops), "tflop": sum(o.flop for o in ops) / 1e12, "gigabytes": sum(o.bytes for o in ops) / 1e9,
            "activations_gb": costs[part].held / 1e9,
        }
        for part, ops in recordings.items()
    }  # fmt: skip
    kept = ", ".join(f"{part} {cost.held / 1e9:.1f}" for part, cost in costs.items())
    print(f"Gigabytes that an update keeps for its backward pass, counted, in float32: {kept}; in bf16 half to two thirds.")
    print(
        "Assumed: each operation takes its arithmetic or its bytes, whichever is longer, at a fixed share of the card's "
        "peaks, plus launches (agent/cost.py); compiled: elementwise operations for nothing, fused into their neighbours."
    )
    published = BenchmarkConfig()
    checked = check_against_published(record(published, Spaces(channels=3, size=64, actions=(17,))))
    result["published_a100"] = {part: {"estimated": a, "measured": b} for part, (a, b) in checked.items()}
    for part, (estimated, measured) in checked.items():
        print(
            f"published code, A100, {part}: estimated {estimated * 1e3:.0f} ms, measured {measured * 1e3:.0f} "
            f"({estimated / measured - 1:+.0%})"
        )
    epoch = 500 * sum(estimated for estimated, _ in checked.values()) + 19
    print(f"published code, A100, an epoch with 19 s of playing: estimated {epoch:.0f} s, measured 557 ({epoch / 557 - 1:+.0%})")
    print(f"(The assumed shares and launch cost were fitted to these {len(PUBLISHED)} figures: no independent test.)")
    result["published_a100_epoch"] = {"estimated": epoch, "measured": 557}
    return result


def main(config: BenchmarkConfig, overrides: list[str]) -> None:
    check_config(config)
    if not 0 < config.seconds < float("inf"):
        raise BadInput(f"seconds={config.seconds} was given; give more than 0, and a finite number.")
    if config.modes is not None and not (config.modes and set(config.modes) <= {"eager", "compiled", "captured"}):
        raise BadInput(f"modes={config.modes} was given; give some of eager, compiled, captured.")
    if not config.dreams or min(config.dreams) < 1:
        raise BadInput(f"dreams={config.dreams} was given; give numbers of 1 or more, dreams=[1,16,256], say.")
    for key, path in (("output", config.output), ("roofline", config.roofline)):
        if path:
            check_writable(key, Path(path))
    if config.dream:
        result = dreaming(config, overrides)
    elif not config.updates:
        result = playing(config)
    else:
        result = estimate_cards(config) if config.estimate else benchmark(config, overrides)
    if config.output:
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        Path(config.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.argv = ["estimate=true" if argument == "--estimate" else argument for argument in sys.argv]
    command("benchmark", BenchmarkConfig, main, expand)
