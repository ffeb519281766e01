"""Gymnasium environments; knows nothing of training, but for the dream, which is made of what was trained.

Importing this package registers its environments and nothing more: the games themselves are
imported when one is made. Gymnasium 1.x has no plugins, so say either `import envs` before
`gymnasium.make("deltadream/Crafter-v1")`, or `gymnasium.make("envs:deltadream/Crafter-v1")`.
"""

import os

# pygame's SDL, by which many environments render, would swallow SIGTERM: no `kill` and no Slurm would end the process.
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")

ENVIRONMENTS = {
    "deltadream/Crafter-v1": "envs.crafter:CrafterEnv",
    "deltadream/Catch-v0": "envs.catch:CatchEnv",
    "deltadream/Atari-v0": "envs.atari:AtariEnv",
}
DREAM = "deltadream/Dream-v0"


def register_environments() -> None:
    """Make `ENVIRONMENTS` known to `gymnasium.make`; a second call changes nothing."""
    import gymnasium

    for id, entry_point in ENVIRONMENTS.items():
        if id not in gymnasium.registry:
            # All count their own steps: Crafter's and Atari's limits are arguments of their constructors.
            gymnasium.register(id, entry_point=entry_point)
    if DREAM not in gymnasium.registry:
        # A world may forget to end its episodes: Gymnasium's own limit, which `make` and `make_vec` take as an argument.
        entry_points = {"entry_point": "envs.dream:make_dream", "vector_entry_point": "envs.dream:make_dreams"}
        gymnasium.register(DREAM, **entry_points, max_episode_steps=1000)


register_environments()
