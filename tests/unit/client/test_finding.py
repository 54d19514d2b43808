"""The node of a home: found, started or missing."""

import pytest

from p2pq.client import finding, starter
from p2pq.client.starter import Options
from p2pq.errors import NodeUnreachableError, RefusedError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    return tmp_path / "home"


def say_nothing(text):
    raise AssertionError(text)


def test_no_node_and_none_wanted(home):
    with pytest.raises(NodeUnreachableError, match=r"home; start one with `p2pq start`"):
        finding.connect(home, start=False, say=say_nothing)


def test_a_token_that_cannot_be_read(home):
    (home / "api.token").mkdir(parents=True)
    with pytest.raises(NodeUnreachableError, match="check P2PQ_HOME"):
        finding.connect(home, start=False, say=say_nothing)


def test_a_node_is_started_once_and_said(home, monkeypatch):
    started, said = [], []
    monkeypatch.setattr(starter, "start_node", lambda *args: started.append(args))
    home.mkdir()
    (home / "start.json").write_text('{"slots": 3}')
    with pytest.raises(NodeUnreachableError):
        finding.connect(home, start=True, say=said.append)
    assert started == [(home, Options(slots=3).argv())]
    assert said == [
        "no `p2pq stop` since the last start, so its options hold: --slots 3",
        "started a node in the background; `p2pq stop` ends it",
    ]


def test_root_must_be_meant(home, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.delenv("P2PQ_ALLOW_ROOT")
    with pytest.raises(RefusedError, match="P2PQ_ALLOW_ROOT=1"):
        finding.connect(home, start=True, say=say_nothing)
