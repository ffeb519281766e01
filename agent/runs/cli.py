"""The command line: typed configuration by Hydra, and refusals in one sentence."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.config.compose import CONFIGS, composed, forced, register, typed
from agent.runs.help import help_text, keys_of, keys_of_parts
from agent.storage.files import disk_full, sentence_of
from envs.errors import BadInput, Stopped
from envs.output import safe_output

Main = Callable[[Any, list[str]], None]


@safe_output()
def command(
    name: str,
    schema: type,
    main: Main,
    defaults: Sequence[Any] = (),
    values: dict[str, Any] | None = None,
    expand: Callable[[list[str]], list[str]] = list,
) -> None:
    """Run `main(config, overrides)` with the command line's configuration.

    With --multirun once for each combination; one that fails says so, and the others go on.
    Exit code 2 and one sentence for bad input, 1 for a run that had to stop or output that is cut,
    130 for Ctrl-C. What a pipe's reader does not see once it is gone is no error.

    Args:
        name: of the command.
        schema: the dataclass of its configuration.
        main: gets an instance of it, and the overrides as they were given, "key=value".
        defaults: Hydra's defaults list.
        values: of the command's own, after these.
        expand: turns the arguments into those that are meant.
    """
    register(name, defaults, values)
    # A process that multiprocessing starts imports the main module by it: of ours it needs nothing.
    vars(sys.modules["__main__"]).pop("__file__", None)
    sys.path.append(os.getcwd())  # env.id=module:Name-v0 finds a module where one stands
    try:
        arguments = expand(sys.argv[1:])
        many = {"-m", "--multirun"} & set(arguments)
        given = completed([a for a in arguments if a not in many], schema)
        if {"-h", "--help"} & set(given):
            print(help_text(name, schema, defaults))
        elif given[-2:] == ["--cfg", "job"]:  # as Hydra's own commands have it
            print(OmegaConf.to_yaml(configuration(name, schema, given[:-2])))
        elif many:
            run_many(name, schema, main, given)
        else:
            own = [argument for argument in given if not argument.startswith("hydra.searchpath=")]
            main(configuration(name, schema, given), own)
    except BadInput as error:
        sys.exit(refuse(str(error)))
    except Stopped as error:
        print(error.trace, error, sep="", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (full := disk_full(error)) is None:
            raise
        sys.exit(f"Stopped: {sentence_of(full)}; free some space, then give the command again.")
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is not None and not isinstance(error, BrokenPipeError):
        sys.exit(f"The output is cut ({error.strerror}), all else is done; write it elsewhere.")


def configuration(name: str, schema: type, arguments: list[str]) -> Any:
    """A command's configuration, an instance of its dataclass. Raises BadInput."""
    try:
        return typed(composed(name, arguments), schema)
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(explain(error, schema)) from error


def run_many(name: str, schema: type, main: Main, arguments: list[str]) -> None:
    """Each combination of a sweep by Hydra's launcher, which may be another process."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors arrive here instead of in Hydra's own report

    @hydra.main(version_base=None, config_path=str(CONFIGS), config_name=name)
    def hydra_main(config: DictConfig) -> None:
        given = list(HydraConfig.get().overrides.task)
        with safe_output():  # in a launcher's process too
            try:
                main(typed(config, schema), given)
            except Exception as error:
                if isinstance(error, OmegaConfBaseException):
                    error = BadInput(explain(error, schema))
                if isinstance(error, Stopped):
                    print(error.trace, end="", file=sys.stderr)
                elif not isinstance(error, BadInput):
                    traceback.print_exception(error)
                refuse(f"{' '.join(as_given(given))}: {error}")
                raise error

    def value_of(job: JobReturn) -> Any:
        """What a run came to; Hydra's own property writes a line of its own where one failed."""
        if job.status == JobStatus.FAILED:
            raise job._return_value
        return job._return_value

    JobReturn.return_value = property(value_of, JobReturn.return_value.fset)
    sys.argv[1:] = ["--multirun", *map(forced, arguments)]
    try:
        hydra_main()
    except (BadInput, Stopped) as error:  # of a run, which has printed it
        sys.exit(2 if isinstance(error, BadInput) else 1)
    except (HydraException, OmegaConfBaseException) as error:  # of the command line
        raise BadInput(explain(error, schema)) from error


def refuse(sentence: str) -> int:
    """Print why, and return the exit code of bad input."""
    print(" ".join(sentence.split()), file=sys.stderr, flush=True)
    return 2


def as_given(overrides: Iterable[str]) -> list[str]:
    """The arguments as they were typed, without what Hydra and we put into them."""
    parsed = [(o, o.value()) for o in OverridesParser.create().parse_overrides(list(overrides))]
    return [
        f"{o.key_or_group}={value}" if isinstance(value, str) else o.input_line.lstrip("+")
        for o, value in parsed
    ]


def completed(arguments: Iterable[str], schema: type) -> list[str]:
    """The arguments with what they stand for.

    --config-dir=<folder>, of configurations of one's own, is Hydra's hydra.searchpath; env=gym
    without an experiment trains experiment=tiny.

    Raises:
        BadInput: an argument is not key=value.
    """
    given = []
    for argument in arguments:
        if argument.startswith("--config-dir="):
            folder = Path(argument.partition("=")[2]).absolute()
            argument = f"hydra.searchpath=[file://{folder}]"
        options = ("-h", "--help", "--cfg", "job")
        if argument not in options and not re.match(r"[^=~-][^=]*=", argument):
            raise BadInput(
                f"{argument} is not key=value; --help shows the keys, and a value with spaces or "
                "parentheses is quoted, as in 'run=\"my run\"'."
            )
        given.append(argument)
    named = any(argument.startswith(("experiment=", "resume=")) for argument in given)
    trains = "experiment" in {field.name for field in dataclasses.fields(schema)}
    return given + ["experiment=tiny"] * ("env=gym" in given and trains and not named)


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
    if isinstance(error, MissingConfigException) and error.options:
        group, _, given = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={given} does not exist; choose one of {', '.join(error.options)}."
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).lstrip("+").partition("=")
        is_text = value[:1] not in ("[", "{")
        such = argument(key, value) if is_text else 'within it, or a tuple, as "(1, 2)"'
        return (
            f"{key}={value} cannot be read; write a list as key=[a,b], and a text with such "
            f"characters {'as ' * is_text}{such}."
        )
    cause: BaseException = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    message = str(cause).splitlines()[0].rstrip(".").replace("++", "")
    key = getattr(cause, "full_key", None)
    if message.startswith("Merge error"):
        value = message.rpartition(" ")[2]
        return f"{value} was given for a group of keys; give group.key=value (--help shows them)."
    if message.startswith("Ambiguous value"):
        return f"{message}; give one, a list as key=[a,b], or run each with --multirun."
    if key and "not in" in message and "converted" not in message:
        return unknown(key, schema)
    where = f"{key}: " if key else ""
    return f"{where}{message}; --help shows what is accepted."


def unknown(key: str, schema: type) -> str:
    """What to give instead of a key that the configuration does not have."""
    of_parts: dict[str, list[str]] = {}  # key -> how the kinds that have it are chosen
    for part, kind, keys in keys_of_parts():
        group = "quantizer" if part == "tokenizer.quantizer" else f"agent/{part}"
        for own in keys:
            of_parts.setdefault(own.name, []).append(f"{group}={kind}")
    if owners := of_parts.get(key):
        return f"{key} belongs to {' or '.join(owners)}; choose that too, or leave the key out."
    known = [own.name for own in keys_of(schema())]
    if "env.id" in known:
        known += [*of_parts, "env.kwargs.max_episode_steps", "env.kwargs.render_mode"]
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.7 if "env." in key else 0.5)
    if not near and key.startswith("env."):
        near = [f"env.kwargs.{key.removeprefix('env.')}"]
    hint = f"did you mean {' or '.join(near)}?" if near else "--help shows the keys."
    return f"{key} is not a key of the configuration; {hint}"
