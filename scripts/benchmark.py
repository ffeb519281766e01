"""What an experiment costs here: python scripts/benchmark.py experiment=crafter_quick.

With --estimate: on cards that are not here. With dream=true: its world as an environment.
"""

import sys

from agent.benchmark.command import benchmark
from agent.benchmark.config import BenchmarkConfig
from agent.config.compose import TRAINING
from agent.runs.cli import command
from agent.runs.sweep import expand

if __name__ == "__main__":
    sys.argv = ["estimate=true" if argument == "--estimate" else argument for argument in sys.argv]
    command("benchmark", BenchmarkConfig, benchmark, TRAINING, expand=expand)
