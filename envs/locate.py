"""Where in an observation the image is."""

from typing import Any

import gymnasium
from gymnasium.spaces import Dict, Space, Tuple

from envs.errors import BadInput
from envs.images import check_layout, is_image, short

PIXELS = ("auto", "observation", "render")
READABLE = (
    "an image [H, W], [H, W, C] or [C, H, W] between finite bounds, its own or those of env.range "
    "(uint8, bool, integers or floats), a Dict or Tuple that holds one, or render_mode='rgb_array'"
)

Path = tuple[str | int, ...]
"""Keys that lead from an observation to its image; () for an observation that is one."""


def find_image(
    space: Space, pixels: str, image: str | None, layout: str | None = None, has_range: bool = False
) -> Path | None:
    """Where in an observation the image is; None: it has to be rendered.

    Args:
        pixels, image: as in EnvConfig; nested keys have dots between.
        layout, has_range: as in `is_image`.

    Raises:
        BadInput: they are not accepted, there are several images, or none where there must be one.
    """
    if pixels not in PIXELS:
        raise BadInput(f"env.pixels={pixels} was given; choose one of {', '.join(PIXELS)}.")
    if layout is not None:
        check_layout(layout)
    if pixels == "render":
        if image is not None or layout is not None:
            raise BadInput(
                f"env.image={image} and env.layout={layout} are of an observation, which "
                "env.pixels=render does not show; leave them out."
            )
        return None
    images = {
        ".".join(map(str, path)): path
        for path, inner in leaves(space)
        if is_image(inner, layout, has_range)
    }
    if image is not None and image not in images:
        raise BadInput(
            f"env.image={image} was given, but no image of {short(space)} has this key; its images "
            f"are {', '.join(filter(None, images)) or 'none'}."
        )
    if image is None and len(images) > 1:
        raise BadInput(
            f"The observation holds the images {', '.join(images)}; give one of them, as "
            f"env.image={next(iter(images))}."
        )
    if not images and (layout is not None or pixels == "observation"):
        raise BadInput(
            f"env.pixels={pixels} and env.layout={layout} were given, but {short(space)} holds no "
            f"such image; accepted are {READABLE}: give env.pixels=render, or wrap it."
        )
    return images[image] if image is not None else next(iter(images.values()), None)


def check_can_render(env: gymnasium.Env, pixels: str) -> None:
    """Raises BadInput if an environment without an accepted image cannot render either."""
    modes = env.metadata.get("render_modes") or []
    if "rgb_array" not in modes:
        why = f"The observation space {short(env.observation_space)} holds no image"
        if pixels == "render":
            why = "env.pixels=render was given"
        raise BadInput(
            f"{why}, and the environment has no render_mode rgb_array "
            f"({', '.join(map(str, modes)) or 'none at all'}); accepted are {READABLE}: "
            "wrap it so that it has one of these."
        )


def leaves(space: Space, path: Path = ()) -> list[tuple[Path, Space]]:
    """All spaces within, with their paths."""
    if isinstance(space, Dict | Tuple):
        inner = space.items() if isinstance(space, Dict) else enumerate(space)
        return [leaf for key, within in inner for leaf in leaves(within, (*path, key))]
    return [(path, space)]


def part_at(observation: Any, path: Path) -> Any:
    for key in path:
        observation = observation[key]
    return observation
