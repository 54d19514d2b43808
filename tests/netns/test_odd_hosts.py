"""Hosts that are not as they should be: a copied home, and one that nobody can dial."""

import shutil
import subprocess
import time
from pathlib import Path

from p2pq.wire import control
from tests.e2e import lab
from tests.netns.lan import Host, Lan, contents, into_one_mesh, linked

RESULT = """
import os, pathlib, sys, time
time.sleep(0.3)
data = pathlib.Path("data.bin").read_bytes()
(pathlib.Path(os.environ["P2PQ_RESULTS"]) / "copy.bin").write_bytes(data[::-1])
"""


def test_a_copied_home_is_refused_with_a_sentence(lan: Lan) -> None:
    """The copy has the same key: the two never link, neither appears twice, and doctor says what to do."""
    anna, bert = (lan.add(name) for name in ("anna", "bert"))
    into_one_mesh([anna, bert])
    assert anna.stop() == 0
    clone = lan.add("clone")
    shutil.rmtree(clone.home)
    shutil.copytree(anna.home, clone.home)
    anna.start()
    linked([anna, bert])
    clone.start()
    sentence = lab.until(lambda: complaint(anna) or complaint(clone), "one of the two says that its home was copied")
    assert "this home was copied" in sentence
    assert "delete identity.key" in sentence
    deadline = time.monotonic() + 3
    own = anna.ready.split()[2]
    while time.monotonic() < deadline:
        for host in (anna, clone):
            peers = host.ask(control.PeersList(), control.PeerView)
            assert own not in {peer.id for peer in peers if peer.state == "up"}
        seen = [peer for peer in bert.ask(control.PeersList(), control.PeerView) if peer.id == own]
        assert len(seen) == 1
        time.sleep(0.1)
    assert "this home was copied" in anna.log() + clone.log()


def complaint(host: Host) -> str:
    """Return what doctor says of the membership, if that is not in order."""
    findings = host.ask(control.Doctor(), control.Finding)
    return next((each.detail for each in findings if each.check == "membership" and not each.ok), "")


def test_a_worker_that_nobody_can_dial_still_works(lan: Lan, tmp_path: Path) -> None:
    """As behind NAT: it dials out; blobs and results go over connections that it made."""
    anna, shy = lan.add("anna"), lan.add("shy")
    anna.start()
    shy.start("--listen", "127.0.0.1:9476", "--peer", f"{anna.ip}:9476", mdns=False)
    code = anna.ok("invite").split()[0]
    shy.ok("join", code, "--at", anna.address, "--yes")
    linked([anna, shy])
    assert not can_dial(anna, shy)
    folder = lab.make_folder(tmp_path / "job", RESULT)
    data = bytes(range(256)) * 40_000
    (folder / "data.bin").write_bytes(data)
    anna.ok("submit", "--where", "shy", "--array", "0-5", str(folder))
    [job] = anna.json("jobs")
    assert {task.node for task in anna.tasks(job["job"])} == {"shy"}
    assert contents(folder / "results") == {f"{number}/copy.bin": data[::-1] for number in range(6)}
    back = lab.make_folder(tmp_path / "back", RESULT)
    (back / "data.bin").write_bytes(data)
    shy.ok("submit", "--where", "anna", str(back))
    assert contents(back / "results") == {"copy.bin": data[::-1]}


def can_dial(host: Host, other: Host) -> bool:
    """Tell whether one host can open a connection to the other's port."""
    code = f"import socket; socket.create_connection(({other.ip!r}, {other.port}), 2)"
    tried = subprocess.run(
        ["ip", "netns", "exec", host.space, "/usr/bin/python3", "-c", code], check=False, capture_output=True
    )
    return tried.returncode == 0
