"""Tokenized world models: agents that learn inside their own discrete simulation of the game."""

import os

# Before torch is imported: its OpenMP threads wait for one another in a busy loop, which on a machine that
# does anything else besides makes an update up to fifty times slower. A short wait, then sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# And torchrl, which would tell of every storage on standard output.
os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")


def __getattr__(name: str):
    """`from agent import train, evaluate`, without importing everything with each part of the package."""
    if name in ("train", "evaluate", "configure"):
        from agent import api

        return getattr(api, name)
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
