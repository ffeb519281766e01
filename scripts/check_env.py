"""Try an environment before training: python scripts/check_env.py env=gym env.id=CartPole-v1."""

from agent.config.compose import TRAINING
from agent.runs.check_env import CheckEnvConfig, check_env
from agent.runs.cli import command

if __name__ == "__main__":
    command("check_env", CheckEnvConfig, check_env, TRAINING)
