"""The command that compares quantizers on the same frames."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from omegaconf import OmegaConf

from agent.benchmark.table import line
from agent.config import TrainConfig
from agent.config.compose import QUANTIZERS, merged
from agent.runs.checks import check_writable
from envs.errors import BadInput
from envs.make import spaces_of
from envs.settings import COUNT, SEED, setting

# A quick look, one to two minutes for a quantizer and seed on a core: small frames, few updates.
VALUES = {
    "env": {"size": 32},
    "collect": {"first_steps": 6000},
    "tokenizer": {"first_updates": 2000},
    "dynamics": {"batch": 4, "first_updates": 600},
    "agent": {"tokenizer": {"quantizer": {"size": 1024, "dim": 64}}},  # fsq has 1000 codes
}
COLUMNS = {  # result -> heading
    "error": "error/copying's",
    "use_bits": "use, bits",
    "codes_alive": "codes alive",
    "cross_entropy_bits": "cross-entropy",
    "update_ms": "update, ms",
    "quantizer_ms": "quantizer, ms",
}


@dataclass
class CompareQuantizersConfig(TrainConfig):
    """A comparison: tokenizer and dynamics learn for their first updates with each quantizer.

    Attributes:
        quantizers: Names, as in quantizer=<name>.
        seeds: Of frames and weights; `seed` is not read.
        held_out: Environment steps to measure on.
        output: Where to write the results as JSON; null: only printed.
    """

    quantizers: list[str] = field(default_factory=lambda: sorted(QUANTIZERS))
    seeds: list[int] = setting([0, 1, 2], SEED)
    held_out: int = setting(1000, COUNT)
    output: str | None = None

    def check(self) -> None:
        """As `TrainConfig.check`; also what is compared."""
        super().check()
        if not self.quantizers or not set(self.quantizers) <= set(QUANTIZERS):
            raise BadInput(
                f"quantizers={self.quantizers} was given; give some of "
                f"{', '.join(sorted(QUANTIZERS))}."
            )
        least = 2 * self.collect.num_envs
        if self.held_out < least:
            raise BadInput(
                f"held_out={self.held_out} was given; give {least} steps or more, two for each of "
                "collect.num_envs."
            )
        if self.output:
            check_writable("output", Path(self.output))

    def variant(self, quantizer: str) -> TrainConfig:
        """The configuration with a quantizer in place."""
        values: dict[str, Any] = asdict(self)
        own = values["agent"]["tokenizer"]["quantizer"]
        values["agent"]["tokenizer"]["quantizer"] = QUANTIZERS[quantizer]
        codes = {key: own[key] for key in ("size", "dim") if key in own}
        sizes = {"tokenizer": {self.agent.tokenizer.kind: {"quantizer": codes}}}
        return OmegaConf.to_object(merged(type(self), values, sizes))  # type: ignore[return-value]


def compare_quantizers(config: CompareQuantizersConfig, overrides: list[str]) -> None:
    """Check, compare, print and write. Raises BadInput."""
    config.check()
    variants = {name: config.variant(name) for name in config.quantizers}
    for variant in variants.values():
        variant.check()
    spaces = spaces_of(config.env, config.seeds[0])
    from agent.benchmark.compare import learn_and_measure, play  # torch takes seconds to import

    results: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    print(line("quantizer", "seed", *COLUMNS.values()))
    for seed in config.seeds:
        train = play(config, spaces, [seed, 0], config.collect.first_steps)
        held_out = play(config, spaces, [seed, 1], config.held_out)
        starts = [(replay.sampler, replay.sampler.state_dict()) for replay in (train, held_out)]
        for name, variant in variants.items():
            for sampler, state in starts:  # the same batches for each quantizer
                sampler.load_state_dict(state)
            result = learn_and_measure(variant, spaces, train, held_out, seed, name)
            results[name].append(result)
            print(line(name, seed, *(result[key] for key in COLUMNS)), flush=True)
            if config.output:  # as far as it has come: a long comparison may be cut short
                about = {"overrides": overrides, "seeds": config.seeds, "results": results}
                Path(config.output).parent.mkdir(parents=True, exist_ok=True)
                Path(config.output).write_text(json.dumps(about, indent=1) + "\n")
    print("\nMean over seeds ± standard deviation")
    for name, runs in results.items():
        columns = [[run[key] for run in runs] for key in COLUMNS]
        cells = [
            f"{mean(values):.4g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")
            for values in columns
        ]
        print(line(name, f"{len(runs)} seeds", *cells))
