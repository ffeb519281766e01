"""Evaluate a saved policy: python scripts/evaluate.py run=<a run's folder, or a checkpoint's>."""

from agent.config.compose import PLAYING
from agent.runs.cli import command
from agent.runs.evaluate import EvaluateConfig, evaluate_run

if __name__ == "__main__":
    command("evaluate", EvaluateConfig, evaluate_run, PLAYING)
