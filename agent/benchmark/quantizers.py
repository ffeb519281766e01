"""The command that compares quantizers on the same frames. Needs no torch to refuse bad input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from agent.config import TrainConfig
from agent.config.compose import QUANTIZERS, merged
from agent.config.training import check_choice
from agent.runs.checks import check_writable
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
        for name in self.quantizers:
            check_choice("quantizers", name, tuple(QUANTIZERS))
        if self.output:
            check_writable("output", Path(self.output))

    def variant(self, quantizer: str) -> TrainConfig:
        """The configuration with a quantizer in place, checked."""
        values: dict[str, Any] = asdict(self)
        own = values["agent"]["tokenizer"]["quantizer"]
        values["agent"]["tokenizer"]["quantizer"] = QUANTIZERS[quantizer]
        codes = {key: own[key] for key in ("size", "dim") if key in own}
        sizes = {"tokenizer": {self.agent.tokenizer.kind: {"quantizer": codes}}}
        config: TrainConfig = OmegaConf.to_object(merged(type(self), values, sizes))  # type: ignore[assignment]
        config.check()
        return config


def compare_quantizers(config: CompareQuantizersConfig, overrides: list[str]) -> None:
    """Check, compare, print and write. Raises BadInput."""
    config.check()
    variants = {name: config.variant(name) for name in config.quantizers}
    spaces = spaces_of(config.env, config.seeds[0])
    import pandas as pd  # here: it and torch take seconds to import

    from agent.benchmark.compare import learn_and_measure

    rows: list[dict[str, Any]] = []
    for seed in config.seeds:
        for name, variant in variants.items():
            measured = learn_and_measure(replace(variant, seed=seed), spaces, config.held_out)
            rows.append({"quantizer": name, "seed": seed} | measured)
            numbers = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
            print(f"{name}, seed {seed}: {numbers}", flush=True)
    if config.output:
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        result = {"overrides": overrides, "results": rows}
        Path(config.output).write_text(json.dumps(result, indent=1) + "\n")
    table = pd.DataFrame(rows).drop(columns="seed").groupby("quantizer").agg(["mean", "std"])
    print(f"\nMean and standard deviation over {len(config.seeds)} seeds")
    print(table.T.to_string(float_format="{:.4g}".format, na_rep="–"))
