"""Train an agent: python scripts/train.py experiment=crafter_quick [key=value …], or resume=<run>."""

from agent.cli import command
from agent.run import train
from agent.config import TrainConfig

if __name__ == "__main__":
    command("train", TrainConfig, train)
