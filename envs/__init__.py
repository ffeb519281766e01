"""Gymnasium environments; knows nothing of training.

Importing this package registers its environments and nothing more: the games themselves are
imported when one is made. Gymnasium 1.x has no plugins, so say either `import envs` before
`gymnasium.make("deltadream/Crafter-v1")`, or `gymnasium.make("envs:deltadream/Crafter-v1")`.
"""

ENVIRONMENTS = {
    "deltadream/Crafter-v1": "envs.crafter:CrafterEnv",
    "deltadream/Catch-v0": "envs.catch:CatchEnv",
    "deltadream/Atari-v0": "envs.atari:AtariEnv",
}


def register_environments() -> None:
    """Make `ENVIRONMENTS` known to `gymnasium.make`; a second call changes nothing."""
    import gymnasium

    for id, entry_point in ENVIRONMENTS.items():
        if id not in gymnasium.registry:
            # All count their own steps: Crafter's and Atari's limits are arguments of their constructors.
            gymnasium.register(id, entry_point=entry_point)


register_environments()
