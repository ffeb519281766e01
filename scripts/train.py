"""Train an agent: python scripts/train.py experiment=crafter_quick [key=value …].

Or go on with a run: resume=<its folder>. With --multirun, one run for each combination of values.
"""

from hydra.core.hydra_config import HydraConfig

from agent.config import TrainConfig
from agent.config.compose import TRAINING
from agent.runs.cli import command
from agent.runs.sweep import expand, train_in_sweep
from agent.runs.train import train


def main(config: TrainConfig, overrides: list[str]) -> None:
    """One run, or one run of a sweep."""
    if HydraConfig.initialized():  # by --multirun
        train_in_sweep(config, overrides)
    else:
        train(config, overrides)


if __name__ == "__main__":
    command("train", TrainConfig, main, TRAINING, expand=expand)
