"""A network of hosts for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.lan import Host, Lan, into_one_mesh, opened


@pytest.fixture
def lan(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lan]:
    """Give a bridge without hosts; what their nodes logged is shown if the test fails."""
    with opened(tmp_path) as made:
        yield made
    for host in made.hosts:
        print(f"--- {host.name}: {host.log()}")


@pytest.fixture
def trio(lan: Lan) -> list[Host]:
    """Give three hosts of one mesh."""
    hosts = [lan.add(name) for name in ("anna", "bert", "carl")]
    into_one_mesh(hosts)
    return hosts
