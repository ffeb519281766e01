import dataclasses
import math

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


def test_no_revival_of_codes_is_a_value():
    check_values(with_value("agent.tokenizer.quantizer.revival_updates", None))


def test_a_decoder_that_learns_from_its_own_frames_needs_three():
    light = "agent.tokenizer.kind=delta_light", "agent.tokenizer.pushforward_after=0"
    config = tiny(*light, "tokenizer.steps=3")
    config.check()
    config.tokenizer.steps = 2
    with pytest.raises(
        BadInput,
        match=r"tokenizer\.steps=2 was given, and agent\.tokenizer\.pushforward_after=0 .* give "
        r"3 or more",
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


class TestSpace:
    """Of a run whose replay takes 3000 rows of 32×32 pixels."""

    ROWS = 3000 * (3 * 32 * 32 + 12)

    @pytest.fixture
    def networks(self) -> Agent:
        return Agent(tiny().agent, Spaces(3, 32, (3,)))

    def refuses(
        self,
        monkeypatch,
        networks,
        folder,
        memory=1e18,
        disk=1e18,
        saved=0,
        activations=0,
        **replay,
    ) -> str | None:
        """With so many bytes free."""
        config = tiny(*(f"replay.{name}={value}" for name, value in replay.items()))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(memory))
        monkeypatch.setattr(psutil, "disk_usage", lambda path: Free(disk))
        try:
            check_space(
                config,
                networks,
                activations,
                Spaces(3, 32, (3,)),
                folder,
                torch.device("cpu"),
                saved,
            )
        except BadInput as refusal:
            return str(refusal)
        return None

    def test_memory(self, monkeypatch, networks, tmp_path):
        weights = 4 * sum(p.numel() for p in networks.parameters())
        enough = self.ROWS + 4 * weights
        assert self.refuses(monkeypatch, networks, tmp_path, memory=enough) is None
        assert "of memory" in self.refuses(monkeypatch, networks, tmp_path, memory=enough - 1)
        assert "replay.storage=memmap" in self.refuses(
            monkeypatch, networks, tmp_path, memory=self.ROWS - 1
        )
        assert (
            self.refuses(monkeypatch, networks, tmp_path, memory=4 * weights, storage="memmap")
            is None
        )

    def test_what_an_update_keeps(self, monkeypatch, networks, tmp_path):
        enough = self.ROWS + 16 * sum(p.numel() for p in networks.parameters()) + 10**9
        assert (
            self.refuses(monkeypatch, networks, tmp_path, memory=enough, activations=10**9) is None
        )
        refusal = self.refuses(
            monkeypatch, networks, tmp_path, memory=enough - 1, activations=10**9
        )
        assert "1.00 GB" in refusal and "tokenizer.batch" in refusal

    @pytest.mark.parametrize(("storage", "copies"), [("memory", 1), ("memmap", 2)])
    def test_disk(self, monkeypatch, networks, tmp_path, storage, copies):
        weights = 4 * sum(p.numel() for p in networks.parameters())
        checkpoints = 3 * weights * 4  # of the two kept, the best and the one being written
        enough = copies * self.ROWS + checkpoints
        new = tmp_path / "runs" / "catch" / "new"
        assert self.refuses(monkeypatch, networks, new, disk=enough, storage=storage) is None
        refusal = self.refuses(monkeypatch, networks, new, disk=enough - 1, storage=storage)
        assert "of disk" in refusal and str(tmp_path) in refusal and "run=<folder>" in refusal
        # What a resumed run holds already need not be free.
        less = enough - 10_000
        assert (
            self.refuses(monkeypatch, networks, new, disk=less, storage=storage, saved=10_000)
            is None
        )
        assert (
            self.refuses(monkeypatch, networks, new, disk=checkpoints, saved=10 * self.ROWS) is None
        )


class Free:
    def __init__(self, free: float) -> None:
        self.free = self.available = free
