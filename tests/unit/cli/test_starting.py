"""Options of start hold until stop."""

import pytest

from p2pq.cli import starting
from p2pq.client import starter
from p2pq.client.starter import Options
from p2pq.errors import NodeUnreachableError, RefusedError


@pytest.fixture
def started(monkeypatch):
    """Give the command lines of the nodes that were started."""
    found = []
    monkeypatch.setattr(starter, "start_node", lambda _home, argv: found.append(argv) or "ready")
    return found


def test_what_is_given_anew_wins_and_the_rest_holds(started, tmp_path, capsys):
    first = Options(name="b", slots=0, peer=("a:1", "b:2"), label=("k=v",), no_mdns=True)
    starting.start(tmp_path, first)
    assert capsys.readouterr().err == ""
    plain = ["--name", "b", "--slots", "0", "--peer", "a:1", "--peer", "b:2", "--label", "k=v", "--no-mdns"]
    assert starting.start(tmp_path, Options()) == "ready"
    assert f"its options hold: {' '.join(plain)}" in capsys.readouterr().err
    starting.start(tmp_path, Options(slots=3, peer=("c:3",), load_probe="echo 1", flight=True))
    starting.forget(tmp_path)
    starting.forget(tmp_path)
    starting.start(tmp_path, Options())
    anew = [
        "--name",
        "b",
        "--slots",
        "3",
        "--peer",
        "c:3",
        "--label",
        "k=v",
        "--no-mdns",
        "--load-probe",
        "echo 1",
        "--flight",
    ]
    assert started == [plain, plain, anew, []]
    assert (tmp_path / starter.OPTIONS_FILE).stat().st_mode & 0o777 == 0o600


def test_a_node_that_did_not_start_changes_nothing(monkeypatch, tmp_path):
    def fails(_home, _argv):
        raise NodeUnreachableError("the port is taken")

    monkeypatch.setattr(starter, "start_node", fails)
    with pytest.raises(NodeUnreachableError):
        starting.start(tmp_path, Options(slots=3))
    assert not (tmp_path / starter.OPTIONS_FILE).exists()


def test_a_file_that_makes_no_sense_or_cannot_be_written(started, tmp_path):
    (tmp_path / starter.OPTIONS_FILE).write_text("{")
    with pytest.raises(RefusedError, match="`p2pq stop` forgets the options"):
        starting.start(tmp_path, Options())
    with pytest.raises(RefusedError, match=r"the node runs, but .* cannot be written"):
        starting.start(tmp_path / "missing", Options())
    assert len(started) == 1
