"""Fixtures that several test files of the daemon use."""

from pathlib import Path

import pytest

from tests.unit.daemon.storekit import Opened


@pytest.fixture
async def opened(tmp_path: Path):
    opened = Opened(tmp_path / "store.sqlite").start()
    yield opened
    await opened.store.close()
