from pathlib import Path

import pytest

from tests.scripts.commands import train
from tests.tiny import TINY


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A run of two epochs, by the command. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = train(*TINY, f"run={folder}", cwd=folder.parent)
    assert result.code == 0, result.err
    return folder


@pytest.fixture(scope="session")
def catch(tmp_path_factory) -> Path:
    """The preset's run, trained in minutes: for slow tests."""
    folder = tmp_path_factory.mktemp("catch") / "run"
    result = train("experiment=catch", "seed=0", f"run={folder}", cwd=folder.parent)
    assert result.code == 0, result.err
    return folder
