"""The command line: typed configuration by Hydra, and refusals in one sentence."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agent.config import KINDS
from agent.config.compose import CONFIGS, composed, forced, register, typed
from agent.runs.help import help_text
from agent.storage.files import disk_full, sentence_of
from envs.errors import BadInput, Stopped
from envs.output import safe_output

# The group: a tuple, not a call.
TEXT_OR_TUPLE = re.compile(r"""\"[^"]*"|'[^']*'|(?<!\w)(\((?:[^()]|\([^()]*\))*\))""")


@safe_output()
def command(
    name: str,
    schema: type,
    main: Callable[[Any, list[str]], None],
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
        expand: turns the arguments into those that are meant; may raise BadInput.
    """
    register(name, defaults, values)
    # A process that multiprocessing starts imports the main module by it: of ours it needs nothing.
    vars(sys.modules["__main__"]).pop("__file__", None)
    sys.path.append(os.getcwd())  # env.id=module:Name-v0 finds a module where one stands
    try:
        arguments = [searched(argument) for argument in expand(sys.argv[1:])]
        if {"-h", "--help"} & set(arguments):
            print(help_text(name, schema, defaults))
        elif arguments[-2:] == ["--cfg", "job"]:  # as Hydra's own commands have it
            config = configuration(name, schema, completed(arguments[:-2], schema))
            print(OmegaConf.to_yaml(OmegaConf.structured(config)))
        elif {"-m", "--multirun"} & set(arguments):
            run_many(name, schema, main, completed(arguments, schema))
        else:
            arguments = completed(arguments, schema)
            own = [given for given in arguments if not given.startswith("hydra.searchpath=")]
            main(configuration(name, schema, arguments), own)
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
    """A command's configuration, an instance of its dataclass.

    Raises:
        BadInput: the arguments cannot be read, or a key, a value or a file is not known.
    """
    try:
        return typed(composed(name, arguments), schema)
    except BadInput:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise BadInput(explain(error, schema)) from error


def run_many(
    name: str, schema: type, main: Callable[[Any, list[str]], None], arguments: list[str]
) -> None:
    """Each combination of a sweep by Hydra's launcher, which may be another process."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors arrive here instead of in Hydra's own report

    @hydra.main(version_base=None, config_path=str(CONFIGS), config_name=name)
    def hydra_main(config: DictConfig) -> None:
        try:
            try:
                with safe_output():  # in a launcher's process too
                    main(typed(config, schema), list(HydraConfig.get().overrides.task))
            except OmegaConfBaseException as error:
                raise BadInput(explain(error, schema)) from error
        except Exception as error:
            if isinstance(error, Stopped):
                print(error.trace, end="", file=sys.stderr)
            elif not isinstance(error, BadInput):
                traceback.print_exception(error)
            refuse(f"{' '.join(as_given(HydraConfig.get().overrides.task))}: {error}")
            raise

    def value_of(job: JobReturn) -> Any:
        """Of a sweep's run; Hydra would tell of its failure too."""
        if job.status == JobStatus.FAILED:
            raise job._return_value
        return job._return_value

    JobReturn.return_value = property(value_of, JobReturn.return_value.fset)
    given = [forced(argument) for argument in arguments if argument not in ("-m", "--multirun")]
    sys.argv[1:] = ["--multirun", *given]  # Hydra wants all key=value together
    try:
        hydra_main()
    except (BadInput, Stopped) as error:  # of a run, which has said so
        sys.exit(2 if isinstance(error, BadInput) else 1)
    except (HydraException, OmegaConfBaseException) as error:  # of the command line
        raise BadInput(explain(error, schema)) from error


def searched(given: str) -> str:
    """--config-dir=<folder>, of configurations of one's own, as the key that Hydra has for it."""
    option, _, folder = given.partition("=")
    if option != "--config-dir":
        return given
    return f"hydra.searchpath=[file://{Path(folder).absolute()}]"


def sweeping() -> bool:
    """Whether this is one of the runs of --multirun."""
    return HydraConfig.initialized()


def refuse(sentence: str) -> int:
    """Say why, and return the exit code of bad input."""
    print(" ".join(sentence.split()), file=sys.stderr, flush=True)
    return 2


def as_given(overrides: Iterable[str]) -> list[str]:
    """The arguments as they were typed, without what Hydra and we put into them."""
    parsed = [(o, o.value()) for o in OverridesParser.create().parse_overrides(list(overrides))]
    return [
        f"{o.key_or_group}={value}" if isinstance(value, str) else o.input_line.lstrip("+")
        for o, value in parsed
    ]


def with_texts(given: str) -> str:
    """A tuple among an environment's own arguments, which to Hydra is a text.

    env.kwargs.size=(128, 64); envs/vector.py makes it a tuple.
    """
    if not given.lstrip("+").startswith(("env.kwargs", "env.evaluation_kwargs")):
        return given
    return TEXT_OR_TUPLE.sub(
        lambda found: json.dumps(found[1], ensure_ascii=False) if found[1] else found[0], given
    )


def completed(arguments: list[str], schema: type) -> list[str]:
    """The arguments, checked, with experiment=tiny where env=gym comes without an experiment.

    Raises:
        BadInput: an argument is not key=value.
    """
    keys = all_keys(schema)
    for i, given in enumerate(arguments):
        before = arguments[i - 1].lstrip("+") if i else ""
        is_part = "=" not in given and not given.startswith(("-", "~")) and given not in keys
        if "=" in before and is_part:
            rest = itertools.takewhile(lambda other: "=" not in other, arguments[i:])
            name, _, value = " ".join([before, *rest]).partition("=")  # a shell has parted them
            raise BadInput(
                f"{given} is not key=value; if {before} goes on with it, quote the whole: "
                f"{argument(name, value)}."
            )
        key = given.lstrip("-").partition("=")[0].replace("-", "_")
        if given.startswith("-") and given not in ("-m", "--multirun"):
            hint = f"{key}=value" if key in keys else "key=value (--help shows the keys)"
            raise BadInput(f"{given} is not an option; values are set without dashes: {hint}.")
        part, _, value = given.lstrip("+").removeprefix("agent.").partition("=")
        if (not part and value) or (part in KINDS and not value.startswith("{")):
            hint = f"agent/{part}={'|'.join(KINDS[part])}" if part else "key=value"
            raise BadInput(f"{given} was given; choose by {hint}.")
        if given.startswith("~"):
            raise BadInput(
                f"{given} was given; a key cannot be taken away, set it to a value: "
                f"{given[1:]}=value."
            )
    named = any(given.startswith(("experiment=", "resume=")) for given in arguments)
    is_training = "experiment" in {field.name for field in dataclasses.fields(schema)}
    default = ["experiment=tiny"] if "env=gym" in arguments and not named and is_training else []
    return [*map(with_texts, arguments), *default]


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
        more = ""
        if group == "hydra/launcher":
            more = " (joblib, submitit_slurm and ray have to be installed: pip install -e "
            more += "'.[joblib,slurm,ray]')"
        return (
            f"{group}={given} does not exist; choose one of {', '.join(error.options or [])}{more}."
        )
    if isinstance(error, OverrideParseException):
        given = str(error.override).lstrip("+")
        key, _, value = given.partition("=")
        text = argument(key, value) if value[:1] not in ("", *"[{(") else "'key=\"a, b\"'"
        return (
            f"{given} cannot be read; write key=value, a list as key=[a,b], and a text with such "
            f"characters as {text}."
        )
    if str(error).startswith("Ambiguous value"):
        given = str(error).splitlines()[0].rpartition(" ")[2].strip("'").removeprefix("++")
        return (
            f"{given} holds several values; give one, a list as key=[a,b], or run each with "
            "--multirun."
        )
    cause: BaseException = error
    while not isinstance(cause, OmegaConfBaseException) and cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None)
    message = str(cause).splitlines()[0].rstrip(".")
    if key and "not in" in message and "converted" not in message:
        owners = [owner for owner, keys in keys_of_kinds() if key in keys]
        if owners:
            return f"{key} belongs to {' or '.join(owners)}; choose that too, or leave the key out."
        in_env = key.startswith("env.")
        near = difflib.get_close_matches(key, all_keys(schema), n=2, cutoff=0.7 if in_env else 0.5)
        near = near or [f"env.kwargs.{key.removeprefix('env.')}"] * in_env
        hint = f"did you mean {' or '.join(near)}?" if near else "--help shows the keys."
        return f"{key} is not a key of the configuration; {hint}"
    if key and ("not Optional" in message or "value 'None'" in message):
        return f"{key}=null was given; it cannot be null, give a value."
    if key:
        return f"{key}: {message[0].lower()}{message[1:]}; give a value of that type."
    return f"{message}; --help shows what is accepted."


def all_keys(schema: type) -> list[str]:
    """Every dotted key of a configuration, for suggestions."""
    keys = keys_below(dataclasses.asdict(schema()), "")
    others = (key for _, own in keys_of_kinds() for key in own) if "agent" in keys else ()
    made = ["env.kwargs.max_episode_steps", "env.kwargs.render_mode"] if "env" in keys else []
    return list(dict.fromkeys([*keys, *others, *made]))


def keys_of_kinds() -> Iterator[tuple[str, list[str]]]:
    """(how a kind of a part is chosen, the keys that it has)."""
    for part, kinds in KINDS.items():
        group = "quantizer" if part == "tokenizer.quantizer" else f"agent/{part}"
        for kind, config in kinds.items():
            keys = keys_below(dataclasses.asdict(config()), f"agent.{part}")
            inner = "agent.tokenizer.quantizer." if group != "quantizer" else " "
            yield f"{group}={kind}", [key for key in keys if not key.startswith(inner)]


def keys_below(node: Any, prefix: str) -> list[str]:
    """The dotted keys of nested dictionaries, and of what holds them."""
    if not isinstance(node, dict):
        return [prefix]
    inner = [
        key
        for name, value in node.items()
        for key in keys_below(value, f"{prefix}.{name}" if prefix else name)
    ]
    return [prefix, *inner] if prefix else inner
