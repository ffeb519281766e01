"""The command line: typed configuration by Hydra, and refusals in one sentence."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.agent import KINDS
from agent.config import merged, store
from agent.files import disk_full, sentence_of
from envs.errors import BadInput, Stopped

CONFIGS = Path(__file__).parent.parent / "configs"


def command(
    config_name: str,
    schema: type,
    main: Callable[[Any, list[str]], None],
    expand: Callable[[list[str]], list[str]] = list,
) -> None:
    """Run `main(config, overrides)` with the command line's configuration, an instance of `schema`.

    config_name: of a file in configs/ that starts from <config_name>_schema, where `schema`'s defaults stand
    overrides:   as they were given, "key=value"
    expand:      turns the command line's arguments into those that are meant; may raise BadInput

    With --multirun once for each combination; one that fails says so, and the others go on.
    Exit code 2 and one sentence for bad input, 1 for a run that had to stop, 130 for Ctrl-C.
    """
    store(config_name, schema)
    # A process that multiprocessing starts imports the main module by it: of ours it needs nothing, and torch would come along.
    vars(sys.modules["__main__"]).pop("__file__", None)
    sys.path.append(os.getcwd())  # env.id=module:Name-v0 finds a module where one stands
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that errors arrive here instead of in Hydra's own report
    failures: list[Exception] = []

    def fail(error: Exception) -> None:
        failures.append(error)
        if not sweeping():  # past Hydra, which would print a line of its own
            return
        if isinstance(error, Stopped):
            print(error.trace, end="", file=sys.stderr)
        elif not isinstance(error, BadInput):
            traceback.print_exception(error)
        refuse(f"{HydraConfig.get().job.override_dirname}: {error}")
        raise error  # to the process that started this one, maybe

    @hydra.main(version_base=None, config_path=str(CONFIGS), config_name=config_name)
    def hydra_main(config: DictConfig) -> None:
        try:
            main(typed(config, schema), list(HydraConfig.get().overrides.task))
        except OmegaConfBaseException as error:
            fail(BadInput(explain(error, schema)))
        except Exception as error:
            full = None if isinstance(error, BadInput | Stopped) else disk_full(error)
            fail(error if full is None else Stopped(f"Stopped: {sentence_of(full)}; free some space, then give the command again."))

    try:
        # Hydra wants all key=value together.
        sys.argv[1:] = sorted(completed(expand(sys.argv[1:]), schema), key=lambda argument: "=" in argument and not argument.startswith("-"))
        check_arguments(sys.argv[1:], schema)
        try:
            hydra_main()
        except (BadInput, Stopped) as error:  # of a sweep's run, which has said so
            sys.exit(2 if isinstance(error, BadInput) else 1)
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # of the command line, not of main
            if any(error is failure for failure in failures):
                raise
            raise BadInput(explain(error, schema)) from error
        if failures:
            raise failures[0]
    except BadInput as error:
        sys.exit(refuse(str(error)))
    except Stopped as error:
        print(error.trace, error, sep="", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def typed(config: DictConfig, schema: type) -> Any:
    """Hydra's configuration as an instance of `schema`. Raises OmegaConf's errors, for keys added by + too."""
    return OmegaConf.to_object(merged(schema, OmegaConf.to_container(config, resolve=True)))


def sweeping() -> bool:
    """Whether this is one of the runs of --multirun."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def refuse(sentence: str) -> int:
    """Say why, and return the exit code of bad input."""
    print(" ".join(sentence.split()), file=sys.stderr, flush=True)
    return 2


def completed(arguments: list[str], schema: type) -> list[str]:
    """The arguments as Hydra wants them; raises BadInput for a part's kind as a value. Of other environments, experiment=tiny is the first thing to try."""
    for part in KINDS:
        for argument in arguments:
            if argument.lstrip("+").startswith(f"agent.{part}.kind="):
                raise BadInput(f"{argument} was given; a part is chosen as a whole, by agent/{part}={argument.partition('=')[2]}.")
    named = any(argument.startswith(("experiment=", "resume=")) for argument in arguments)
    default = ["experiment=tiny"] if "env=gym" in arguments and not named and hasattr(schema, "experiment") else []
    return [*map(free_key, arguments), *default]


def free_key(argument: str) -> str:
    """An environment's own argument, env.kwargs.name=value, may be new: to Hydra that is ++env.kwargs.name=value."""
    return f"++{argument}" if argument.startswith(("env.kwargs", "env.evaluation_kwargs")) else argument


def check_arguments(arguments: list[str], schema: type) -> None:
    """Raises BadInput for what Hydra would take for something else."""
    def fail(message: str) -> NoReturn:
        raise BadInput(f"The command cannot be read ({message}); values are set without dashes: key=value (--help shows the keys).")

    parser = get_args_parser()
    parser.error = fail  # its own prints the options, line after line
    for unknown in parser.parse_known_args(arguments)[1]:
        key = unknown.strip("-").partition("=")[0].replace("-", "_")
        hint = f"{key}=value" if key in all_keys(schema) else "key=value (--help shows the keys)"
        raise BadInput(f"{unknown} is not an option; values are set without dashes: {hint}.")
    for argument in arguments:
        if argument.startswith("~"):
            raise BadInput(f"{argument} was given; a key cannot be taken away, set it to a value: {argument[1:]}=value.")


def argument(key: str, value: object) -> str:
    """A key and its value as they can be typed at a shell, for Hydra to read."""
    text = str(value)
    try:
        (as_it_is,) = OverridesParser.create().parse_overrides([f"{key}={text}"])
        is_plain = as_it_is.value() == text
    except HydraException:
        is_plain = False
    if not is_plain:  # a backslash is one, but before a quote
        text = re.sub(r'(\\+)(?="|\Z)', r"\1\1", text).replace('"', r"\"")
        text = f'"{text}"'
    return shlex.quote(f"{key}={text}")


def trusted(env_id: str) -> list[str]:
    """What a command needs besides the run, if the run's environment lies in a module."""
    return [argument("env.id", env_id)] if ":" in env_id else []


def explain(error: Exception, schema: type) -> str:
    """Hydra's and OmegaConf's errors as one sentence that names the key and what is accepted."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, given = str(error.missing_cfg_file).rpartition("/")
        if not group:
            return f"There is no configuration {given}; see configs/ for those that there are."
        more = " (joblib, submitit_slurm and ray have to be installed: pip install -e '.[joblib,slurm,ray]')" if group == "hydra/launcher" else ""
        return f"{group}={given} does not exist; choose one of {', '.join(error.options or [])}{more}."
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0].rstrip(".")
        accepted = "key=value, quoting as in 'key=\"a, b\"', or a list key=[a,b]"
        return f"{error.override} cannot be read ({reason}); write {accepted}."
    if str(error).startswith("Ambiguous value"):
        argument = str(error).splitlines()[0].rpartition(" ")[2].strip("'")
        return f"{argument} holds several values; give one, a list as key=[a,b], or run each with --multirun."
    cause: BaseException = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None)
    message = str(cause).splitlines()[0].rstrip(".")
    if key and ("not in" in message or "Could not override" in str(error)) and "converted" not in message:
        if owners := [f"agent/{part}={kind}" for (part, kind), keys in keys_of_parts().items() if key in keys]:
            return f"{key} belongs to {' and '.join(owners)}; choose that too, or leave the key out."
        near = difflib.get_close_matches(key, all_keys(schema), n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see configs/ for the keys that there are."
        return f"{key} is not a key of the configuration; {hint}"
    if key and "not Optional" in message:
        return f"{key}=null was given; it cannot be null, give a value."
    if key:
        return f"{key}: {message[0].lower()}{message[1:]}; give a value of that type."
    return f"{message}; see configs/ for what is accepted."


def all_keys(schema: type) -> list[str]:
    """Every dotted key of a configuration, for suggestions."""
    keys = keys_below(dataclasses.asdict(schema()), "")
    others = (key for own in keys_of_parts().values() for key in own) if "agent" in keys else ()
    return list(dict.fromkeys([*keys, *others]))  # each once: a suggestion is not to say the same twice


def keys_of_parts() -> dict[tuple[str, str], list[str]]:
    """(part of an agent, kind) -> the keys that it has."""
    return {
        (part, name): keys_below(dataclasses.asdict(kind()), f"agent.{part}") for part, kinds in KINDS.items() for name, kind in kinds.items()
    }


def keys_below(node: Any, prefix: str) -> list[str]:
    """The dotted keys of nested dictionaries, and of what holds them."""
    if not isinstance(node, dict):
        return [prefix]
    inner = [key for name, value in node.items() for key in keys_below(value, f"{prefix}.{name}" if prefix else name)]
    return [prefix, *inner] if prefix else inner
