"""Fixtures that several test files of the daemon use."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.daemon.jobskit import Rig
from tests.unit.daemon.storekit import Opened


@pytest.fixture
async def opened(tmp_path: Path):
    opened = Opened(tmp_path / "store.sqlite").start()
    yield opened
    await opened.store.close()


@pytest.fixture
async def rig(opened, tmp_path):
    async with asyncio.TaskGroup() as group:
        yield Rig(opened, tmp_path, group)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mysim"
    path.mkdir()
    (path / "main.py").write_text("print('hello')\n")
    return path
