"""Three hosts on one network make one mesh; nobody else is in it."""

import secrets
import socket
import subprocess
from pathlib import Path

from p2pq.model.ids import from_text
from p2pq.wire import control
from tests.e2e import lab
from tests.netns.lan import Host, Lan, capture, contents, into_one_mesh, linked, start_all

FOUND_S = 3.0

SIMULATION = """
import hashlib, os, pathlib, sys, time
time.sleep(0.4)
results = pathlib.Path(os.environ["P2PQ_RESULTS"])
(results / "digest.txt").write_text(hashlib.sha256(repr(sys.argv[1:]).encode()).hexdigest())
(results / "curve.bin").write_bytes(b"".join(hashlib.sha512(bytes([n]) + sys.argv[2].encode()).digest() for n in range(200)))
print("rate", sys.argv[2])
"""


def test_three_hosts_find_each_other_and_share_a_sweep(lan: Lan, tmp_path: Path) -> None:
    hosts = [lan.add(name) for name in ("anna", "bert", "carl")]
    into_one_mesh(hosts)
    for known in ("mDNS alone", "memory and mDNS"):
        for host in hosts:
            assert host.stop() == 0
            if known == "mDNS alone":
                (host.home / "store.sqlite").unlink()
                host.ok("repair", "--yes")
        last_ready = start_all(hosts)
        seconds = linked(hosts) - last_ready
        print(f"by {known} all linked {seconds:.2f} s after the last ready")
        assert seconds < FOUND_S

    anna = hosts[0]
    far, near = (lab.make_folder(tmp_path / place / "sim", SIMULATION) for place in ("far", "near"))
    sweep = ("--sweep", "rate=1:30:1")
    anna.ok("submit", *sweep, str(far), "--rate", "{rate}", timeout=45)
    anna.ok("submit", *sweep, "--where", "local", str(near), "--rate", "{rate}", timeout=45)
    assert len(contents(near / "results")) == 60
    assert contents(far / "results") == contents(near / "results")
    local, spread = anna.json("jobs")
    assert {task["node"] for task in anna.json("tasks", local["job"])} == {"anna"}
    nodes = [task["node"] for task in anna.json("tasks", spread["job"])]
    shares = {name: nodes.count(name) for name in sorted(set(nodes))}
    print(f"sweep of 30: {shares}")
    assert len(nodes) == 30
    assert set(shares) == {"anna", "bert", "carl"}


def test_a_stranger_on_the_wire_learns_nothing(lan: Lan, tmp_path: Path) -> None:
    """Names are long and random, so that finding one in the capture means that it was said."""
    mark = {what: f"{what}-{secrets.token_hex(4)}" for what in ("host", "owner", "job", "file", "arg", "log", "clear")}
    text = secrets.token_hex(400)
    first, second, third = (lan.add(f"{mark['host']}{letter}".replace("-", "")) for letter in "xyz")
    stranger = lan.add("odd")
    stranger.start()
    wire = tmp_path / "wire.pcap"
    folder = lab.make_folder(
        tmp_path / mark["job"],
        "import os, pathlib, sys, time\n"
        f"text = pathlib.Path('{mark['file']}').read_text()\n"
        f"(pathlib.Path(os.environ['P2PQ_RESULTS']) / 'out-{mark['file']}').write_text(text.upper())\n"
        f"print('{mark['log']}', sys.argv[1]); time.sleep(0.3)\n",
    )
    (folder / mark["file"]).write_text(text)
    with capture(lan, wire):
        into_one_mesh([first, second, third], "--owner", mark["owner"])
        second.ok("submit", "--cold", "--array", "0-17", str(folder), mark["arg"])
        first.ok("submit", "--where", third.name, str(folder), mark["arg"])
        spoken_in_clear(first, stranger, mark["clear"])
        lab.until(lambda: mark["clear"].encode() in wire.read_bytes(), "the capture has what was said in clear")
    assert len(list(folder.glob("results/out-*"))) == 1
    assert {task.node for job in second.json("jobs") for task in second.tasks(job["job"])} >= {first.name, third.name}

    seen = wire.read_bytes()
    assert b"_p2pq" in seen
    assert len(seen) > 50_000
    names = {first.name, second.name, third.name, f"{socket.gethostname()}.local"}
    secret = names | {*mark.values(), text, text.upper(), text[:64], "main.py", "read_text"} - {mark["clear"]}
    assert {name for name in secret if name.encode() in seen} == set()
    for host in (first, second, third):
        node = host.ready.split()[2]
        assert node.encode() not in seen, "the node's id was said"
        assert from_text(node, 32) not in seen, "the node's key was said"

    assert stranger.up() == set()
    assert stranger.json("jobs") == []
    assert [member["state"] for member in stranger.json("members")] == ["self"]
    [status] = stranger.ask(control.Status(), control.StatusView)
    assert status.running == ()
    assert (status.disk["blobs"], status.kept_results) == (0, 0)


def spoken_in_clear(speaker: Host, hearer: Host, text: str) -> None:
    """Send one datagram that anybody can read, to prove that the capture works."""
    code = (
        f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto({text!r}.encode(), ({hearer.ip!r}, 9))"
    )
    subprocess.run(["ip", "netns", "exec", speaker.space, "/usr/bin/python3", "-c", code], check=True)


def test_two_meshes_on_one_network_never_mix(lan: Lan, tmp_path: Path) -> None:
    ours = [lan.add(name) for name in ("anna", "bert")]
    theirs = [lan.add(name) for name in ("xena", "yuri")]
    into_one_mesh(ours)
    into_one_mesh(theirs)
    linked(ours)
    groups = (ours, theirs)
    ids = [{member["id"] for member in host.json("members")} for hosts in groups for host in hosts]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert len(ids[0]) == len(ids[2]) == 2
    assert ids[0].isdisjoint(ids[2])
    jobs = []
    for hosts in groups:
        folder = lab.make_folder(tmp_path / f"of-{hosts[0].name}", "import time; time.sleep(0.3)")
        jobs.append((hosts, hosts[0].detach("--array", "0-11", str(folder))))
    for hosts, job in jobs:
        hosts[0].ok("wait", job)
        assert {task.node for task in hosts[0].tasks(job)} == {host.name for host in hosts}
    for hosts in groups:
        assert all(host.up() == {other.name for other in hosts} - {host.name} for host in hosts)
