"""Compare quantizers on the same frames: python scripts/compare_quantizers.py [key=value …]."""

from agent.benchmark.quantizers import VALUES, CompareQuantizersConfig, compare_quantizers
from agent.config.compose import TRAINING
from agent.runs.cli import command

if __name__ == "__main__":
    command("compare_quantizers", CompareQuantizersConfig, compare_quantizers, TRAINING, VALUES)
