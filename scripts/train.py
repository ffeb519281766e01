"""Train an agent: python scripts/train.py experiment=crafter_quick [key=value …], or resume=<run>; many with --multirun."""

from agent.cli import command, sweeping
from agent.config import TrainConfig
from agent.run import train
from agent.multirun import expand, train_in_sweep


def main(config: TrainConfig, overrides: list[str]) -> None:
    train_in_sweep(config, overrides) if sweeping() else train(config, overrides)


if __name__ == "__main__":
    command("train", TrainConfig, main, expand)
