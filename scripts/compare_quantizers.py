"""The quantizers of configs/quantizer/ against each other: python scripts/compare_quantizers.py [key=value …].

Frames by random play, then the tokenizer's and the dynamics' first updates of the experiment: for each seed the same
frames, the same batches and the same first weights, but for what a quantizer adds. Measured on frames of other worlds.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from agent.agent import Agent, sketch_agent
from agent.checks import check_config, check_writable, pick_device
from agent.cli import CONFIGS, command
from agent.collect import Collector
from agent.config import TrainConfig
from agent.execution import choose_execution
from agent.learner import Averages
from agent.nets.conv import pixels
from agent.parts import make_learner, schedule_of, synchronize, window
from agent.progress import progress
from agent.quantizers.quantizer import QuantizerConfig
from agent.replay import Replay
from agent.run import spaces_of
from agent.segment import Segment
from envs.errors import BadInput
from envs.vector import make_vector

PARTS = ("tokenizer", "dynamics")  # that have to do with tokens
READ_EVERY = 50  # updates between two looks at whether the losses are finite
COLUMNS = {  # result -> (heading, format)
    "error": ("error / copying's", ".3f"), "use_bits": ("use, bits", ".2f"), "codes_alive": ("codes alive", ".0f"),
    "cross_entropy_bits": ("cross-entropy, bits", ".2f"), "update_ms": ("update, ms", ".0f"),
    "quantizer_ms": ("of it quantizer", ".1f"),
}  # fmt: skip


@dataclass
class CompareQuantizersConfig(TrainConfig):
    """quantizers: names of files in configs/quantizer/
    seeds:    of frames and weights (`seed` is not read)
    held_out: environment steps to measure on
    output:   where to write the results as JSON; null: only printed
    """

    quantizers: list[str] = field(default_factory=lambda: sorted(path.stem for path in (CONFIGS / "quantizer").glob("*.yaml")))
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    held_out: int = 1000
    output: str | None = None


def main(config: CompareQuantizersConfig, overrides: list[str]) -> None:
    check_config(config)
    known = CompareQuantizersConfig().quantizers
    if not config.quantizers or not set(config.quantizers) <= set(known):
        raise BadInput(f"quantizers={config.quantizers} was given; give some of {', '.join(known)}.")
    least = 2 * config.collect.num_envs
    if not config.seeds or min(config.seeds) < 0 or config.held_out < least:
        raise BadInput(
            f"seeds={config.seeds} and held_out={config.held_out} were given; give at least one seed, none below 0, and "
            f"{least} steps or more (two for each of collect.num_envs)."
        )
    if config.output:
        check_writable("output", Path(config.output))
    spaces = spaces_of(config.env, config.seeds[0])
    variants = {name: with_quantizer(config, name) for name in config.quantizers}
    for variant in variants.values():
        check_config(variant)
        sketch_agent(variant.agent, spaces)
    device = pick_device(config.device)

    results: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    print(" ".join(f"{heading:>20}" for heading in ("quantizer", "seed", *(heading for heading, _ in COLUMNS.values()))))
    for seed in config.seeds:
        train, test = (play(config, spaces, device, [seed, purpose]) for purpose in (0, 1))
        start = train.sampler.state_dict()
        batch, steps, anchor = window(config, "dynamics")
        draws = math.ceil(config.held_out / (batch * steps)) * 2  # twice over: windows overlap
        held_out = [test.sample("test", batch, steps, anchor, count=False).to(device) for _ in range(draws)]
        for name, variant in variants.items():
            train.sampler.load_state_dict(start)
            results[name].append(learn_and_measure(variant, spaces, device, train, held_out, seed, name))
            print(row(name, str(seed), {key: (value, None) for key, value in results[name][-1].items()}), flush=True)
            save(config, overrides, device, results)  # as far as it has come: a long comparison may be cut short
    print("\nMean over seeds ± standard deviation")
    for name, runs in results.items():
        print(row(name, f"{len(runs)} seeds", {key: summary([run[key] for run in runs]) for key in runs[0]}))


def save(config: CompareQuantizersConfig, overrides: list[str], device: torch.device, results: dict[str, list[dict[str, float]]]) -> None:
    """The results and what they are of, as JSON, where `output` says."""
    if config.output is None:
        return
    about = {
        "overrides": overrides, "seeds": config.seeds, "device": str(device), "torch": torch.__version__,
        "steps": {"collected": config.collect.first_steps, "held_out": config.held_out},
        "updates": {part: schedule_of(config, part).first_updates for part in PARTS},
    }  # fmt: skip
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)
    Path(config.output).write_text(json.dumps(about | {"results": results}, indent=1) + "\n")


def with_quantizer(config: CompareQuantizersConfig, name: str) -> TrainConfig:
    """The configuration, with a file of configs/quantizer/ in place."""
    values: Any = OmegaConf.structured(config)
    given = OmegaConf.merge(values.agent.tokenizer.quantizer, OmegaConf.load(CONFIGS / "quantizer" / f"{name}.yaml"))
    values.agent.tokenizer.quantizer = OmegaConf.merge(OmegaConf.structured(QuantizerConfig), given)
    return OmegaConf.to_object(values)


def play(config: CompareQuantizersConfig, spaces: Any, device: torch.device, seed: list[int]) -> Replay:
    """Random play. seed: of these frames; its second number is 0 for those to train on, 1 for those held out."""
    steps = config.held_out if seed[1] else config.collect.first_steps
    number = config.collect.num_envs
    seeds = np.random.SeedSequence(seed).generate_state(number + 1).tolist()
    torch.manual_seed(seeds[0])
    replay = Replay(config.replay, number, spaces, seeds[0], device=device)
    envs = make_vector(config.env, seeds[1:])
    try:
        with progress("collect", steps, "step") as bar:
            Collector(envs, Agent(config.agent, spaces), replay, 1.0).collect(steps, random=True, progress=bar.update)
    finally:
        envs.close()
    return replay


def learn_and_measure(
    config: TrainConfig, spaces: Any, device: torch.device, replay: Replay, held_out: list[Segment], seed: int, name: str
) -> dict[str, float]:
    """Tokenizer, then dynamics -> what became of them, keys as in COLUMNS, and the mean squared error itself."""
    torch.manual_seed(seed)
    agent = Agent(config.agent, spaces).eval().to(device)
    execution = choose_execution(config.learner.mode, config.precision, device, flop=0.0)
    times: dict[str, list[float]] = {}
    torch.compiler.reset()
    for part in PARTS:
        schedule = schedule_of(config, part)
        learner, averages, updates = make_learner(agent, config, part, execution), Averages(), schedule.first_updates
        learner.set_learning_rate(schedule.learning_rate_in(schedule.start_epoch))
        times[part] = []
        with progress(f"{name} {part}", updates, "update") as bar:
            for i in range(updates):
                segment = replay.sample(part, *window(config, part), count=False).to(device)
                started = clock(device)
                metrics = learner.update(segment)
                times[part].append(clock(device) - started)
                averages.add(metrics)
                bar.update()
                if i % READ_EVERY == 0 or i + 1 == updates:
                    averages.read()
    batch, steps, _ = window(config, "tokenizer")
    vectors = batch * (steps - 1) * agent.tokenizer.tokens
    measured = {"update_ms": 1e3 * median(times["tokenizer"]), "quantizer_ms": quantizer_ms(agent, vectors)}
    return measure(agent, held_out) | measured


def clock(device: torch.device) -> float:
    """Seconds: of all this process's threads on a CPU, so that what others do there does not count; by the wall for a GPU."""
    synchronize(device)
    return process_time() if device.type == "cpu" else perf_counter()


@torch.no_grad()
def measure(agent: Agent, held_out: list[Segment]) -> dict[str, float]:
    """On real transitions: the error of decoded next frames against that of copying the frame, both with pixels in 0..1;
    the entropy and number of the codes in use; the dynamics' cross-entropy a token."""
    tokenizer, config = agent.tokenizer, agent.config
    counts = torch.zeros(config.tokenizer.quantizer.num_codes, device=agent.device)
    decoded_error, copied_error, cross_entropy = [], [], []
    for segment in held_out:
        real = segment.mask[:, :-1].flatten()
        frames, next_frames, decoded = (
            pixels(f.flatten(0, 1)[real]) for f in (segment.frames[:, :-1], segment.frames[:, 1:], tokenizer.reconstruction(segment))
        )
        tokens = tokenizer.tokens_of(segment)[:, 1 - segment.frames.shape[1] :]  # that led to the frames after the first
        counts += torch.bincount(tokens.flatten(0, 1)[real].flatten(), minlength=len(counts))
        decoded_error.append((decoded - next_frames).square().mean(dim=(1, 2, 3)))
        copied_error.append((frames - next_frames).square().mean(dim=(1, 2, 3)))
        cross_entropy.append(agent.dynamics_loss(segment)["tokens"] / config.dynamics.tokens_weight * real.sum())
    share, transitions = counts / counts.sum(), sum(map(len, decoded_error))
    squared_error, copied = (torch.cat(errors).mean().item() for errors in (decoded_error, copied_error))
    return {
        "squared_error": squared_error,
        "error": squared_error / copied,
        "use_bits": -torch.special.xlogy(share, share).sum().item() / math.log(2),
        "codes_alive": int((counts > 0).sum()),
        "cross_entropy_bits": sum(cross_entropy).item() / transitions / math.log(2),
    }


def quantizer_ms(agent: Agent, vectors: int, repetitions: int = 20) -> float:
    """Of the quantizer alone, forwards, backwards and its codes' own step, for as many vectors as an update has."""
    quantizer, times = agent.tokenizer.quantizer.train(), []
    z = torch.randn(vectors, agent.config.tokenizer.quantizer.vector_dim, device=agent.device, requires_grad=True)
    for _ in range(repetitions):
        started = clock(agent.device)
        output = quantizer(z)
        (output.vectors.sum() + output.commitment).backward()
        times.append(clock(agent.device) - started)
    return 1e3 * median(times)


def summary(values: list[float]) -> tuple[float, float | None]:
    """Mean and standard deviation."""
    return mean(values), stdev(values) if len(values) > 1 else None


def row(name: str, seed: str, values: dict[str, tuple[float, float | None]]) -> str:
    """A line of the table."""
    cells = [name, seed]
    for key, (_, form) in COLUMNS.items():
        value, deviation = values[key]
        cells.append(f"{value:{form}}" + ("" if deviation is None else f" ± {deviation:{form}}"))
    return " ".join(f"{cell:>20}" for cell in cells)


if __name__ == "__main__":
    command("compare_quantizers", CompareQuantizersConfig, main)
