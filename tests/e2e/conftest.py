"""Nodes for end-to-end tests."""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lab

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control ignores Ctrl-C for what it starts in the background, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def host(tmp_path):
    """Give one host whose node runs, of its own."""
    with lab.hosts(tmp_path, ["home"]) as [found]:
        found.start()
        yield found


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Give one host whose node runs for all tests that leave it as they found it; jobs of other tests are in its list."""
    with lab.hosts(tmp_path_factory.mktemp("shared"), ["home"]) as [found]:
        found.start("--name", "home", "--slots", "2", "--label", "room=12", "--listen", "127.0.0.1:0")
        lab.until(lambda: found.json("status")["sandbox"] != "unknown", "the sandbox is tested")
        yield found


@pytest.fixture
def usual(shared, tmp_path, monkeypatch):
    """Make the shared node the usual one of this process, in an empty folder."""
    for name, value in shared.environment().items():
        if name.startswith("P2PQ_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return shared


@pytest.fixture
def home(tmp_path):
    """Give a host on which nothing runs."""
    with lab.hosts(tmp_path, ["home"]) as [found]:
        yield found


@pytest.fixture
def pair(tmp_path):
    """Give two hosts of one mesh, linked."""
    with lab.hosts(tmp_path, ["alice", "bob"]) as found:
        alice, bob = found
        alice.start("--name", "alice")
        bob.start("--name", "bob")
        code = alice.ok("invite").split()[0]
        bob.ok("join", code, "--at", alice.address, "--yes")
        lab.until(lambda: any(peer["state"] == "up" for peer in alice.json("peers")), "bob is linked")
        yield found


@pytest.fixture
def tested(pair):
    """Two nodes that know what they can promise."""
    for host in pair:
        lab.until(lambda host=host: host.json("status")["sandbox"] != "unknown", "the sandbox is tested")
    return pair
