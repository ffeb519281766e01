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


def find_configs() -> Path:
    """The folder configs/: beside this package in a clone, in the package deltadream in a wheel."""
    clone = Path(__file__).parents[2] / "configs"
    if (clone / "experiment").is_dir():
        return clone
    return Path(str(files("deltadream"))) / "configs"


CONFIGS = find_configs()
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
    """Make a command's configuration known to Hydra.

    Args:
        name: of the command.
        defaults: Hydra's defaults list: TRAINING, PLAYING or nothing.
        values: of the command's own, which win over the defaults list.
    """
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
    """What a command's arguments, "key=value" each, come to with the files that they choose.

    Raises:
        HydraException: the arguments cannot be read, or a file does not exist.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, [forced(argument) for argument in arguments])


def typed(config: DictConfig, schema: type) -> Any:
    """A composed configuration as an instance of a dataclass.

    Raises:
        OmegaConfBaseException: a key is not known, or a value is not of its type.
        BadInput: there is no part of that kind.
    """
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
    config, given = OmegaConf.structured(schema), OmegaConf.create(values)
    if "agent" not in config:
        return OmegaConf.merge(config, given)  # type: ignore[return-value]

    def select(part: str, sized: dict[str, Any]) -> None:
        kind = OmegaConf.select(given, f"agent.{part}.kind") or sized.pop("kind", None)
        _select(config, part, kind, sized)

    for part in ("tokenizer", "dynamics", "policy"):
        chosen = OmegaConf.select(given, f"agent.{part}.kind") or config.agent[part].kind
        sized = _sizes_of(part, str(chosen), (sizes or {}).get(part, {}))
        quantizer = sized.pop("quantizer", {})
        select(part, sized)
        if part == "tokenizer":
            select("tokenizer.quantizer", quantizer)
    learning = _sizes_of(
        "tokenizer", config.agent.tokenizer.kind, (sizes or {}).get("actor_critic", {})
    )
    return OmegaConf.merge(config, {"agent": {"actor_critic": learning}}, given)  # type: ignore[return-value]


def _sizes_of(part: str, kind: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a kind: those of the kinds that it extends first."""
    if kind not in KINDS[part]:
        raise BadInput(
            f"agent.{part}.kind={kind} is not known; choose agent/{part}={'|'.join(KINDS[part])}."
        )
    kinds = [vars(c).get("kind") for c in reversed(KINDS[part][kind].__mro__)]
    return OmegaConf.to_container(OmegaConf.merge(*(sizes.get(k) or {} for k in kinds)))  # type: ignore


def _select(config: DictConfig, part: str, kind: str | None, sized: dict[str, Any]) -> None:
    """Put a part of this kind in place, with those of the sizes that it has."""
    path = f"agent.{part}"
    if kind is not None and kind not in KINDS[part]:
        raise BadInput(f"{path}.kind={kind} is not known; choose one of {', '.join(KINDS[part])}.")
    if kind is not None and kind != OmegaConf.select(config, path).kind:
        OmegaConf.update(config, path, OmegaConf.structured(KINDS[part][kind]), merge=False)
    node = OmegaConf.select(config, path)
    OmegaConf.update(config, path, {k: v for k, v in sized.items() if k in node}, merge=True)
