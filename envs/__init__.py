"""Gymnasium environments; knows nothing of agents.

Importing this package registers its environments and nothing more: the games themselves are
imported when one is made. Gymnasium 1.x has no plugins, so say either `import envs` before
`gymnasium.make("deltadream/Crafter-v1")`, or `gymnasium.make("envs:deltadream/Crafter-v1")`.
"""

import os

# pygame's SDL, by which many environments render, would swallow SIGTERM, from `kill` or Slurm.
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")

ENVIRONMENTS = {
    "deltadream/Crafter-v1": "envs.games.crafter:CrafterEnv",
    "deltadream/Catch-v0": "envs.games.catch:CatchEnv",
    "deltadream/Atari-v0": "envs.games.atari:AtariEnv",
}


def register_environments() -> None:
    """Make `ENVIRONMENTS` known to `gymnasium.make`; a second call changes nothing."""
    import gymnasium

    for id, entry_point in ENVIRONMENTS.items():
        if id not in gymnasium.registry:
            # All count their own steps: Crafter and Atari take their limits as arguments.
            gymnasium.register(id, entry_point=entry_point)


register_environments()
