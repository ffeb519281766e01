"""Files of configs/ and key=value arguments -> a typed configuration.

Hydra composes plain values; what they may be is checked against the dataclasses afterwards, so
that sizes can depend on which parts were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from agent.config.agent import KINDS
from envs.errors import BadInput

CLONE = Path(__file__).parents[2] / "configs"  # in a wheel it is part of the package deltadream
CONFIGS = CLONE if CLONE.is_dir() else Path(str(files("deltadream"))) / "configs"
GROUPS = ("env", "agent", "size", "experiment", "quantizer")
TRAINING = [
    {"env": "crafter"},
    {"agent": "delta_iris"},
    {"size": "published"},
    {"experiment": "crafter"},
    {"quantizer": None},
    "_self_",
]
PLAYING = [{"env": "crafter"}, "_self_"]
QUANTIZERS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in KINDS["tokenizer.quantizer"]},
    "cosine_ema_product": {"kind": "cosine_ema", "codebooks": 2},
    "cosine_ema_rotation": {"kind": "cosine_ema", "gradient": "rotation"},
    "vq_rotation": {"kind": "vq", "gradient": "rotation"},
}


def register(name: str, defaults: Sequence[Any], values: dict[str, Any] | None = None) -> None:
    """Make a command's configuration known to Hydra: a defaults list, and values that win."""
    store = ConfigStore.instance()
    hydra = {
        "output_subdir": None,  # Hydra writes nothing of its own
        "run": {"dir": "."},
        "sweep": {"dir": "runs/sweeps/${now:%Y-%m-%d_%H-%M-%S}", "subdir": "."},
        "job": {"chdir": False},
    }
    logging = [
        {"override hydra/hydra_logging": "disabled"},
        {"override hydra/job_logging": "disabled"},
    ]
    store.store(name, {"defaults": [*defaults, *logging], "hydra": hydra, **(values or {})})
    for part in ("tokenizer", "dynamics", "policy"):
        for kind in KINDS[part]:
            store.store(kind, {"kind": kind}, group=f"agent/{part}")
    for quantizer, settings in QUANTIZERS.items():
        store.store(quantizer, settings, group="quantizer", package="agent.tokenizer.quantizer")


def is_group(key: str) -> bool:
    """Whether key=value chooses a file of configs/ and not a value."""
    return key in GROUPS or "/" in key or key.startswith("hydra")


def forced(argument: str) -> str:
    """key=value as Hydra takes a key that is in no file: ++key=value."""
    key = argument.partition("=")[0]
    plain = argument.startswith(("+", "~", "-")) or "=" not in argument or is_group(key)
    return argument if plain else f"++{argument}"


def composed(name: str, arguments: list[str]) -> DictConfig:
    """What a command's arguments, "key=value" each, come to with the files that they choose."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, [forced(argument) for argument in arguments])


def typed(config: DictConfig, schema: type) -> Any:
    """A composed configuration as an instance of a dataclass. Raises as `merged` does."""
    values: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    sizes = values.pop("size", None) or {}
    return OmegaConf.to_object(merged(schema, values, sizes))


def merged(schema: type, values: dict[str, Any], sizes: dict[str, Any] | None = None) -> DictConfig:
    """The schema's defaults, with an agent's parts of the kinds that are chosen, and these values.

    Args:
        schema: a dataclass.
        values: nested, as in a file of configs/.
        sizes: a file of configs/size/: part -> kind -> values that come before `values`.

    Raises:
        OmegaConfBaseException: a key is not known, or a value is not of its type.
        BadInput: there is no part of that kind.
    """
    config, given, sizes = OmegaConf.structured(schema), OmegaConf.create(values), sizes or {}
    quantizer: dict[str, Any] = {}
    for part, kinds in KINDS.items() if "agent" in config else ():
        path = f"agent.{part}"
        chosen = OmegaConf.select(given, path, default={})
        if not OmegaConf.is_dict(chosen) and chosen != {}:
            raise BadInput(f"{path}={chosen} was given; choose by agent/{part}={'|'.join(kinds)}.")
        kind = chosen.get("kind") or quantizer.pop("kind", OmegaConf.select(config, path).kind)
        if kind not in kinds:
            raise BadInput(f"{path}.kind={kind} is not known; choose one of {', '.join(kinds)}.")
        if kind != OmegaConf.select(config, path).kind:
            OmegaConf.update(config, path, OmegaConf.structured(kinds[kind]), merge=False)
        if part == "tokenizer.quantizer":  # its sizes were chosen for one kind
            node = OmegaConf.select(config, path)
            sized = {name: value for name, value in quantizer.items() if name in node}
        else:
            sized = _sizes(sizes.get(part, {}), kinds[kind])
            quantizer = sized.pop("quantizer", {})
        OmegaConf.update(config, path, sized, merge=True)
        if part == "tokenizer":
            learning = _sizes(sizes.get("actor_critic", {}), kinds[kind])
            OmegaConf.update(config, "agent.actor_critic", learning, merge=True)
    return OmegaConf.merge(config, given)  # type: ignore[return-value]


def _sizes(sizes: dict[str, Any], config: type) -> dict[str, Any]:
    """The sizes of a kind: those of the kinds that it extends first."""
    kinds = [vars(owner).get("kind") for owner in reversed(config.__mro__)]
    return OmegaConf.to_container(OmegaConf.merge(*(sizes.get(kind) or {} for kind in kinds)))  # type: ignore
