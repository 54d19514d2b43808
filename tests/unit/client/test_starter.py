"""Starting a node in the background: its word, or why there is none."""

import sys

import pytest

from p2pq.client import starter
from p2pq.errors import ConfigError, NodeUnreachableError


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Give a way to play the node by a script, which is started in place of Python."""

    def play(text):
        script = tmp_path / "node.sh"
        script.write_text("#!/bin/sh\n" + text)
        script.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(script))

    return play


def test_its_ready_line_is_returned_and_it_lives_on(node, tmp_path):
    node(f'echo warming up; echo "ready n abc $*"; echo "$P2PQ_DETACHED $(pwd)" > {tmp_path}/seen\n')
    line = starter.start_node(tmp_path / "home", ["--slots", "2"])
    assert line == f"ready n abc -P -m p2pq --home {tmp_path}/home node --slots 2"


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        (
            "echo 'INFO x' >&2; echo 'p2pq: port 1 is in use' >&2; echo 'INFO later'; exit 2",
            ConfigError,
            "port 1 is in use",
        ),
        ("echo 'p2pq: the store is damaged' >&2; exit 4", NodeUnreachableError, "the store is damaged"),
        ("echo broken; exit 1", NodeUnreachableError, "broken"),
        ("exit 1", NodeUnreachableError, "the node ended without a word"),
        ("echo 'ready without an end of line is not re' | tr -d '\\n'; exit 0", NodeUnreachableError, "ready without"),
    ],
)
def test_a_node_that_does_not_start_says_why(node, tmp_path, script, kind, words):
    node(script)
    with pytest.raises(kind, match=words) as caught:
        starter.start_node(tmp_path)
    assert type(caught.value) is kind
    assert not str(caught.value).startswith("p2pq:")


def test_a_node_that_hangs_is_ended(node, tmp_path, monkeypatch):
    monkeypatch.setattr(starter, "READY_S", 0.3)
    node("exec sleep 60")
    with pytest.raises(NodeUnreachableError, match="not ready after"):
        starter.start_node(tmp_path)
