import os
from pathlib import Path

import pytest
from filelock import FileLock

from tests.scripts.commands import here, train
from tests.tiny import TINY


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A run of two epochs, by the command. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result = here("train", *TINY, f"run={folder}", cwd=folder.parent)
    assert result.code == 0, result.err
    return folder


@pytest.fixture(scope="session")
def catch(tmp_path_factory) -> Path:
    """The preset's run, trained in minutes: for slow tests."""
    base = tmp_path_factory.getbasetemp()
    shared = (
        base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    )  # the other worker may have trained it
    with FileLock(shared / "catch.lock"):
        if not (shared / "catch.done").exists():
            result = train("experiment=catch", "seed=0", "run=catch", cwd=shared)
            assert result.code == 0, result.err
            (shared / "catch.done").touch()
    return shared / "catch"
