"""Tokenized world models: agents that learn inside their own discrete simulation of the game."""

import os

import gymnasium

import envs  # noqa: F401  (registers its environments)

# Before torch is imported. By default its OpenMP threads wait for one another in a busy loop, which
# makes an update up to fifty times slower on a machine that does anything else.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if "deltadream/Dream-v0" not in gymnasium.registry:
    gymnasium.register(
        "deltadream/Dream-v0",
        entry_point="agent.dream.env:make_dream",
        vector_entry_point="agent.dream.env:make_dreams",
        max_episode_steps=1000,  # a world may forget to end its episodes
    )
