import dataclasses
import math
from types import SimpleNamespace

import psutil
import pytest
import torch

from agent.agent import Agent
from agent.config import KINDS, TrainConfig
from agent.execution import pick_device
from agent.runs.checks import check_space
from envs.errors import BadInput
from envs.settings import Range, check_values, flatten
from envs.spaces import Spaces
from tests.tiny import tiny


def ranges(config: object, prefix: str = "") -> dict[str, Range | None]:
    """Key -> its range, of every field that holds a number or a list of them."""
    found: dict[str, Range | None] = {}
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            found |= ranges(value, f"{key}.")
        elif type(value) in (int, float) or (isinstance(value, list) and type(value[0]) is int):
            found[key] = field.metadata.get("range")
    return found


NUMBERS = ranges(TrainConfig())
KINDS_NUMBERS = [
    (f"{part}.{kind}", ranges(config()))
    for part, kinds in KINDS.items()
    for kind, config in kinds.items()
]


def with_value(key: str, value: object) -> TrainConfig:
    config = TrainConfig()
    *path, name = key.split(".")
    owner = config
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, value)
    return config


def test_the_published_configuration_is_accepted():
    TrainConfig().check()
    tiny().check()


def test_every_number_has_a_range():
    assert len(NUMBERS) > 60
    for _, found in [("", NUMBERS), *KINDS_NUMBERS]:
        assert [key for key, accepted in found.items() if accepted is None] == []


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_out_of_range(key: str):
    accepted = NUMBERS[key]
    is_list = isinstance(value_of(key), list)
    wrong = [accepted.least - 1, -1, math.nan, -math.inf, math.inf]
    if accepted.most < math.inf:
        wrong.append(accepted.most + 1)
    for value in wrong:
        given = [1, value] if is_list else value
        with pytest.raises(BadInput) as refusal:
            check_values(with_value(key, given))
        assert str(refusal.value) == f"{key}={given} was given; give {accepted.words}."
    for value in (accepted.least, min(accepted.most, 10**6)):
        check_values(with_value(key, [value] if is_list else value))


def value_of(key: str) -> object:
    """The default of a dotted key."""
    return flatten(dataclasses.asdict(TrainConfig()))[key]


def test_a_decoder_that_learns_from_its_own_frames_needs_three():
    light = "agent.tokenizer.kind=delta_light", "agent.tokenizer.pushforward_after=0"
    config = tiny(*light, "tokenizer.steps=3")
    config.check()
    config.tokenizer.steps = 2
    with pytest.raises(
        BadInput,
        match=r"tokenizer\.steps=2 was given, and agent\.tokenizer\.pushforward_after needs 3",
    ):
        config.check()


def test_devices(monkeypatch):
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    for name in ("", "tpu", "meta", "cuda:77", "cpu;"):
        with pytest.raises(BadInput, match="choose one of auto, cpu"):
            pick_device(name)


@pytest.mark.parametrize(
    ("storage", "saved", "memory", "disk"),
    [("memory", 0, 1, 1), ("memmap", 0, 0, 2), ("memory", 10_000, 1, 1)],
)
def test_space(monkeypatch, tmp_path, storage, saved, memory, disk):
    """Of a run whose replay takes 3000 rows of 32×32 pixels, so many times in memory and on disk."""
    config, spaces = tiny(f"replay.storage={storage}"), Spaces(3, 32, (3,))
    networks, rows, activations = Agent(config.agent, spaces), 3000 * (3 * 32 * 32 + 12), 10**9
    weights = 4 * sum(p.numel() for p in networks.parameters())
    memory = memory * rows + 4 * weights + activations
    disk = disk * rows - saved + 3 * weights * 4  # of the two kept, the best, the one being written

    def check(memory: float, disk: float) -> None:
        free = SimpleNamespace(available=memory, free=disk)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
        monkeypatch.setattr(psutil, "disk_usage", lambda path: free)
        new = tmp_path / "runs" / "new"
        check_space(config, networks, activations, spaces, new, torch.device("cpu"), saved)

    check(memory, disk)
    with pytest.raises(BadInput, match="of memory .* lower replay.capacity"):
        check(memory - 1, disk)
    with pytest.raises(BadInput, match=f"of disk .* free in {tmp_path}; .* run=<folder>"):
        check(memory, disk - 1)
