"""A connection without msgspec, against a node that says what the test wants."""

import pytest

from p2pq.client.quick import QuickConnection
from p2pq.errors import Reject
from p2pq.wire import control
from p2pq.wire.control import Failed, Note
from tests.unit.client.nodekit import GONE


def test_one_request_after_another(node):
    node.answers[control.Show] = [Note(text="é" * 300)]
    node.answers[control.Jobs] = [Failed(message="no")]
    with QuickConnection(str(node.home)) as found:
        assert list(found.ask({"type": "Show", "job": "abcd"})) == [
            {"type": "Note", "text": "é" * 300},
            {"type": "Done"},
        ]
        assert [reply["type"] for reply in found.ask({"type": "Jobs"})] == ["Failed"]
    assert node.heard == [control.Show(job="abcd"), control.Jobs()]


def test_a_node_that_goes_away(node):
    node.answers[control.Jobs] = [Note(text="a"), GONE]
    with QuickConnection(str(node.home)) as found:
        replies = found.ask({"type": "Jobs"})
        assert next(replies)["text"] == "a"
        with pytest.raises(EOFError):
            next(replies)


def test_a_node_that_does_not_greet_back(node):
    node.greeting = Failed(message="wrong version")
    with pytest.raises(Reject):
        QuickConnection(str(node.home))


def test_no_node(tmp_path):
    with pytest.raises(FileNotFoundError):
        QuickConnection(str(tmp_path))
    (tmp_path / "api.token").write_bytes(b"token")
    with pytest.raises(FileNotFoundError):
        QuickConnection(str(tmp_path))


def test_frames_have_a_limit(node, monkeypatch):
    with QuickConnection(str(node.home)) as found:
        monkeypatch.setattr("p2pq.wire.local.FRAME_BYTES_MAX", 100)
        with pytest.raises(OverflowError):
            next(found.ask({"type": "Show", "job": "a" * 101}))
        node.answers[control.Jobs] = [Note(text="a" * 101)]
        with pytest.raises(Reject):
            next(found.ask({"type": "Jobs"}))
    assert node.heard == [control.Jobs()]
