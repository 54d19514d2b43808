"""One input for many workers of a network: it leaves its owner's network card about once, and they share it."""

import os
import time
from pathlib import Path

import pytest

from tests.e2e import lab
from tests.netns.lan import Host, Lan, into_one_mesh

NAMES = ("bert", "carl", "dora", "emil", "fred", "gina")
WAIT_S = 120.0
SIZE = 60 << 20
MBIT = 200
"""So fast are all network cards: what is counted is what takes time."""
COUNTS = """
import os, pathlib, time
data = pathlib.Path("input.bin").read_bytes()
time.sleep(0.5)
open(os.environ["P2PQ_RESULTS"] + "/value.txt", "w").write(f"{len(data)} {data[-8:].hex()}")
"""


@pytest.fixture
def hosts(lan: Lan) -> list[Host]:
    """Give an owner and six workers of one slot, which are labelled as the first or late ones, the owner not at all."""
    owner = lan.add("anna")
    workers = [lan.add(name) for name in NAMES]
    for worker in workers:
        role = "first" if worker is workers[0] else "late"
        worker.configure(f'[node]\nslots = 1\nlabels = {{ role = "{role}", works = "yes" }}\n')
    made = [owner, *workers]
    into_one_mesh(made)
    for host in made:
        lan.slow(host, 0, MBIT)
    return made


def with_input(tmp_path: Path) -> tuple[Path, str]:
    """Make a folder with a large file; return it and what each task must say of it."""
    folder = lab.make_folder(tmp_path / "job", COUNTS)
    data = os.urandom(SIZE)
    (folder / "input.bin").write_bytes(data)
    return folder, f"{SIZE} {data[-8:].hex()}"


def values(folder: Path, tasks: int) -> set[str]:
    return {(folder / f"results/{task}/value.txt").read_text() for task in range(tasks)}


def shares(lan: Lan, hosts: list[Host], before: list[int]) -> list[float]:
    """Return what each host has sent since, in parts of the input."""
    return [round((lan.crossed(host, 0) - old) / SIZE, 2) for host, old in zip(hosts, before, strict=True)]


def given_up_by(host: Host) -> int:
    """Return how often a host gave a neighbour up."""
    return host.json("status")["counters"].get("blobs.neighbours-given-up", 0)


def test_an_input_leaves_its_owner_about_once(lan: Lan, hosts: list[Host], tmp_path: Path) -> None:
    owner, *workers = hosts
    folder, wanted = with_input(tmp_path)
    before = [lan.crossed(host, 0) for host in hosts]
    begun = time.monotonic()
    job = owner.detach("--need", "works=yes", "--array", "0-11", str(folder))
    owner.ok("wait", job, timeout=WAIT_S)
    took = time.monotonic() - begun
    own, *others = shares(lan, hosts, before)
    given_up = sum(given_up_by(worker) for worker in workers)
    print(f"{took:.1f} s; the owner sent {own} times the input, the workers {others}; given up: {given_up}")
    assert values(folder, 12) == {wanted}
    assert "attempt.lost" not in owner.json("status")["counters"]
    assert own < 1.5
    assert max(others) < 2.5
    ran = {task.node for task in owner.tasks(job)}
    assert len(ran) > 1
    for worker in workers:
        if worker.name not in ran:
            continue
        counters = worker.json("status")["counters"]
        came = counters.get("blobs.from-holders-bytes", 0) + counters.get("blobs.from-neighbours-bytes", 0)
        assert came == pytest.approx(SIZE, rel=0.01)


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_a_neighbour_that_goes_while_it_serves(how: str, lan: Lan, hosts: list[Host], tmp_path: Path) -> None:
    """What only it would have sent comes from the owner; no task notices."""
    owner, first, *late = hosts
    folder, wanted = with_input(tmp_path)
    owner.ok("wait", owner.detach("--need", "role=first", str(folder)), timeout=WAIT_S)
    before = [lan.crossed(host, 0) for host in hosts]
    begun = time.monotonic()
    job = owner.detach("--need", "role=late", "--array", "0-4", str(folder))
    lab.until(lambda: lan.crossed(first, 0) - before[1] > SIZE // 2, "it serves the others")
    went = time.monotonic()
    first.kill() if how == "killed" else lan.pull(first)
    owner.ok("wait", job, timeout=WAIT_S)
    own, _, *others = shares(lan, hosts, before)
    print(
        f"{how} after {went - begun:.1f} s, done {time.monotonic() - went:.1f} s later; the owner sent {own}, the others {others}"
    )
    assert values(folder, 5) == {wanted}
    assert {task.node for task in owner.tasks(job)} <= {host.name for host in late}
    assert "attempt.lost" not in owner.json("status")["counters"]
    assert 0 < own < 2.2
    assert how == "killed" or sum(map(given_up_by, late)) > 0
