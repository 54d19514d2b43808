"""Two clusters, an honest bridge and one that tampers: whatever it does is refused and told of, and every job is done.

The kinds of tampering are in tests/netns/tampering.py; each far host has another one at a time. The bridge that tampers has all
links when it begins, for the honest one is started only then.
"""

import hashlib
import os
import re
import signal
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from p2pq.wire import control
from tests.e2e import lab
from tests.netns import tampering
from tests.netns.lan import Host, Lan, into_one_mesh

FAR = ("dora", "emil", "fred", "gina", "hugo")
TASKS = 2
SIZE = 300_000
"""Of what goes there and comes back: more than messages enclose."""
WAIT_S = 90.0
BLOBS = {
    "AltersBlobs": "other-bytes",
    "SwapsBlobs": "other-bytes",
    "InflatesBlobs": "other-bytes",
    "WithholdsBlobs": "no-blobs",
}
RECORDS = {"Alters": "altered", "Replays": "altered", "Swaps": "altered", "Inflates": "altered"}
SLOW = {"Withholds": "silent"}
"""This one takes its time, and is begun before those of records and ended with them."""
WAYS = {
    "Misleads": "other-node",
    "ForgesOrigins": "other-node",
    "ReplaysHandshakes": "not-authentic",
    "Promises": "no-way",
    "Floods": "relay-offer-dropped",
}
SPEAKING = {"ForgesSubGrants": "forged-sub-grant"}
"""What each kind is found out by."""
HASHES = """
import hashlib, os, pathlib
here, task = pathlib.Path(os.environ["P2PQ_RESULTS"]), os.environ["P2PQ_TASK"]
seed = hashlib.sha256(pathlib.Path("input.bin").read_bytes() + task.encode()).digest()
(here / "value.bin").write_bytes(hashlib.shake_256(seed).digest(SIZE))
""".replace("SIZE", str(SIZE))


def test_every_kind_of_tampering_has_its_turn() -> None:
    assert {*BLOBS, *RECORDS, *SLOW, *WAYS, *SPEAKING, "Honest"} == set(tampering.KINDS)


class Mesh:
    """An owner, far hosts, and two bridges between them."""

    def __init__(self, lan: Lan) -> None:
        """Plug all in, start them, and bring them together."""
        self.gate, self.evil = (lan.add(name, (0, 1)) for name in ("gate", "evil"))
        self.evil.node_module = "tests.netns.tampering"
        for bridge in (self.gate, self.evil):
            bridge.configure("[node]\naccept = false\n[bridge]\nenabled = true\n")
        self.anna = lan.add("anna")
        self.anna.configure("[node]\naccept = false\n")
        self.far = [lan.add(name, (1,)) for name in FAR]
        for host in self.far:
            host.configure(f'[node]\nslots = 1\nlabels = {{ here = "{host.name}" }}\n')
        into_one_mesh([self.gate, self.evil, self.anna, *self.far], "--caps", "work,submit,bridge")
        [status] = self.evil.ask(control.Status(), control.StatusView)
        self.evil_id = status.id[:8]
        self.kinds: dict[str, str] = {}
        self.ids = {peer.name: peer.id for peer in self.evil.ask(control.PeersList(), control.PeerView)}

    def via(self) -> dict[str, tuple[str, ...]]:
        """Return by which bridges the owner is linked to the far hosts."""
        peers = self.anna.ask(control.PeersList(), control.PeerView)
        return {peer.name: peer.via for peer in peers if peer.state == "up" and peer.name in FAR}

    def only_evil(self, hosts: Collection[str] = FAR) -> None:
        """Let the bridge that will tamper carry all links of these hosts, as they should be; the others it treats as before."""
        self.gate.kill()
        self.kinds = {name: kind for name, kind in self.kinds.items() if name not in hosts}
        self.tamper({})
        lab.until(lambda: all(self.via().get(name) == ("evil",) for name in hosts), "one bridge carries all")

    def both(self) -> None:
        """Start the honest bridge."""
        self.gate.start()
        wanted = {"gate", "evil"}
        lab.until(lambda: all(wanted <= host.up() for host in (self.anna, *self.far)), "all see both bridges")

    def tamper(self, kinds: dict[str, Host]) -> None:
        """Let it treat hosts in these ways from now on."""
        self.kinds |= {host.name: kind for kind, host in kinds.items()}
        tampering.order(self.evil.home, {self.ids[name]: kind for name, kind in self.kinds.items()})

    def found_out(self, victim: Host, reason: str) -> list[str]:
        """Return the lines by which a far host, or the owner of it, tells what the bridge did."""
        seen = re.compile(rf" WARNING (bridge.suspected bridge|peer.refused peer)={self.evil_id} .*reason={reason}\b")
        # Offers of links are not about anybody: whoever is flooded says so.
        about = re.compile(rf"peer={self.ids[victim.name][:8]}|peer\.refused")
        lines = [(host, line) for host in (victim, self.anna) for line in host.whole_log().splitlines()]
        return [
            f"{host.name}: {line}"
            for host, line in lines
            if seen.search(line) and (host is victim or about.search(line))
        ]


class Job:
    """A job for one far host, and what its results must be."""

    def __init__(self, owner: Host, victim: Host, folder: Path) -> None:
        """Submit it."""
        self.owner, self.victim = owner, victim
        self.folder = lab.make_folder(folder, f"# {folder.name}\n{HASHES}")
        data = os.urandom(SIZE)
        (self.folder / "input.bin").write_bytes(data)
        seeds = [hashlib.sha256(data + b"%d" % task).digest() for task in range(TASKS)]
        self.wanted = [hashlib.shake_256(seed).digest(SIZE) for seed in seeds]
        self.id = owner.detach("--need", f"here={victim.name}", "--array", f"0-{TASKS - 1}", str(self.folder))

    def end(self) -> str:
        """Wait for it; every result must be right. Return what it took."""
        self.owner.ok("wait", self.id, timeout=WAIT_S)
        paths = sorted(self.folder.glob("results/**/*.bin"))
        assert [path.read_bytes() for path in paths] == self.wanted
        tasks = self.owner.tasks(self.id)
        assert {(task.state, task.node) for task in tasks} == {("done", self.victim.name)}
        return f"{[task.attempts for task in tasks]} attempts, over {sorted({task.via for task in tasks})}"


@pytest.mark.timeout(300)
def test_what_a_bridge_does_is_refused_and_told_and_the_jobs_are_done(lan: Lan, tmp_path: Path) -> None:
    mesh = Mesh(lan)
    anna, far = mesh.anna, mesh.far
    begun = time.monotonic()

    def submit(victims: dict[str, Host]) -> dict[str, Job]:
        return {kind: Job(anna, victim, tmp_path / kind) for kind, victim in victims.items()}

    def end(jobs: dict[str, Job], reasons: dict[str, str]) -> None:
        for kind, job in jobs.items():
            took = job.end()
            lines = lab.until(lambda: mesh.found_out(job.victim, reasons[kind]), f"{kind} is told of")  # noqa: B023
            print(f"{time.monotonic() - begun:.1f} s {kind}: {took}\n  {lines[0]}")

    def victims(kinds: dict[str, str]) -> dict[str, Host]:
        return dict(zip(kinds, far, strict=False))

    mesh.only_evil()
    mesh.both()
    slow = dict.fromkeys(SLOW, far[-1])
    mesh.tamper(victims(BLOBS) | slow)
    slow_jobs = submit(slow)
    end(submit(victims(BLOBS)), BLOBS)
    assert "WARNING attempt.lost" not in anna.whole_log(), "another bridge is asked before a task is lost"

    mesh.only_evil(FAR[:-1])
    mesh.both()
    mesh.tamper(victims(RECORDS))
    end(submit(victims(RECORDS)), RECORDS)
    end(slow_jobs, SLOW)
    assert mesh.via() == dict.fromkeys(FAR, ("gate",))

    mesh.only_evil()
    mesh.tamper(victims(WAYS))
    assert mesh.evil.process is not None
    os.kill(mesh.evil.process.pid, signal.SIGUSR1)
    for kind, victim in victims(WAYS).items():
        if kind != "Promises":  # which is found out when another bridge keeps them
            lab.until(lambda: mesh.found_out(victim, WAYS[kind]), f"{kind} is refused")  # noqa: B023
    mesh.both()
    end(submit(victims(WAYS)), WAYS)

    [status] = anna.ask(control.Status(), control.StatusView)
    assert status.counters["task.settled"] == TASKS * len({*BLOBS, *RECORDS, *SLOW, *WAYS}), "each task counts once"
    assert status.counters["bridge.suspected"] > len(RECORDS)
    peers = {peer["name"]: peer["reason"] for peer in anna.json("peers")}
    assert peers["evil"].startswith("behind other bridges: ")
    assert "behind" not in peers["gate"]
    logs = "".join(host.whole_log() for host in lan.hosts)
    assert set(re.findall(r"bridge\.suspected bridge=(\w+)", logs)) == {mesh.evil_id}, "nobody else is suspected"


def test_a_bridge_that_forges_sub_grants_brings_no_result_and_what_its_leaf_brings_elsewhere_is_proved(
    lan: Lan, tmp_path: Path
) -> None:
    """The leaf has the true ones: over the honest bridge its results count at once, though it never had a lease of that one."""
    [(kind, reason)] = SPEAKING.items()
    gate, evil = (lan.add(name, (0, 1)) for name in ("gate", "evil"))
    evil.node_module = "tests.netns.tampering"
    for bridge in (gate, evil):
        bridge.configure("[node]\naccept = false\n[bridge]\nenabled = true\nbatch = true\n")
    anna, dora = lan.add("anna"), lan.add("dora", (1,))
    anna.configure("[node]\naccept = false\n")
    dora.configure(f'[node]\nslots = {TASKS}\nlabels = {{ here = "dora" }}\n')
    into_one_mesh([gate, evil, anna, dora], "--caps", "work,submit,bridge")
    ids = {peer.name: peer.id for peer in evil.ask(control.PeersList(), control.PeerView)}

    def via() -> list[tuple[str, ...]]:
        peers = anna.ask(control.PeersList(), control.PeerView)
        return [peer.via for peer in peers if peer.name == "dora" and peer.state == "up"]

    gate.kill()
    lab.until(lambda: via() == [("evil",)], "one bridge speaks for all")
    tampering.order(evil.home, {ids["anna"]: kind})
    job = Job(anna, dora, tmp_path / kind)
    [status] = evil.ask(control.Status(), control.StatusView)
    told = re.compile(rf" WARNING bridge.suspected bridge={status.id[:8]} .*reason={reason}\b")
    lab.until(lambda: told.search(anna.whole_log()), f"{kind} is told of", 30)
    assert {task.state for task in anna.tasks(job.id)} == {"running"}, "it has brought no result"
    peers = {peer["name"]: peer["reason"] for peer in anna.json("peers")}
    assert peers["evil"] == f"behind other bridges: {reason}"
    gate.start()
    lab.until(lambda: "anna" in gate.up() and "dora" in gate.up(), "the honest one is there")
    evil.kill()
    begun = time.monotonic()
    print(f"{kind}: {job.end()}, {time.monotonic() - begun:.1f} s after its leaf could bring the results another way")
    report = anna.json("verify", job.id)
    assert (report["verified"], report["unkept"], report["refuted"]) == (TASKS, [], [])
    assert [task.attempts for task in anna.tasks(job.id)] == [1] * TASKS
