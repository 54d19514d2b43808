"""A damaged store, with real nodes: said plainly, repaired on request, and the jobs go on."""

import json
import os
import signal
import sqlite3
from contextlib import closing

import lab
import pytest

from p2pq.daemon import crashpoints
from tests.covers import covers

TASKS = 40
PAGE = 4096
MAIN = """
import os, pathlib, time
time.sleep(0.05)
(pathlib.Path(os.environ["P2PQ_RESULTS"]) / "out.txt").write_text(os.environ["P2PQ_TASK"])
"""


def damage(host: lab.Host, table: str) -> None:
    """Overwrite the page where a table begins, as a broken disk would, after a node was killed."""
    store = host.home / "store.sqlite"
    with closing(sqlite3.connect(store)) as db:  # as the node would at its start: the log is written into the file
        [(root,)] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with store.open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(os.urandom(PAGE))


def running_job(host: lab.Host, path) -> tuple[str, object]:
    folder = lab.make_folder(path / "job", MAIN)
    job = host.submit("--array", f"0-{TASKS - 1}", str(folder))
    lab.until(lambda: host.json("show", job)["tasks"]["done"] >= 5, "some tasks are done")
    return job, folder


def check_done(host: lab.Host, job: str, folder, *, others: int = 0) -> None:
    host.ok("wait", job, timeout=90)
    results = folder / "results"
    found = {path.name: (path / "out.txt").read_text() for path in results.iterdir() if path.name.isdecimal()}
    assert found == {str(number): str(number) for number in range(TASKS)}
    assert [path for path in results.iterdir() if path.name.startswith(".p2pq")] == []
    with closing(sqlite3.connect(f"file:{host.home / 'store.sqlite'}?mode=ro", uri=True)) as db:
        done = db.execute("SELECT count(*), sum(delivered) FROM tasks WHERE state = 'done'").fetchall()
    assert done == [(TASKS + others, TASKS + others)]


@covers("repair", "repair --yes", "repair --json")
@pytest.mark.parametrize("table", ["tasks", "attempts", "leases", "settled", "extras"])
def test_a_job_goes_on_after_its_store_was_damaged(home, tmp_path, table):
    home.start("--slots", "2")
    job, folder = running_job(home, tmp_path)
    assert "a node already runs" in home.fails(4, "repair", "--yes")
    home.kill()
    damage(home, table)
    told = home.fails(4, "node", "--no-mdns")
    assert "the store is damaged" in told
    assert "`p2pq repair`" in told
    done = home.run("doctor", "--json")
    assert done.returncode == 1
    [finding] = [finding for finding in json.loads(done.stdout) if finding["check"] == "store"]
    assert (finding["ok"], finding["suggestion"]) == (False, "p2pq repair")
    report = home.json("repair", "--yes")
    assert report["jobs"] == [job] or table == "extras"
    assert (home.home / "store.sqlite.damaged~1~").exists()
    home.start("--slots", "2")
    if table == "extras":
        [moved] = report["moved"]
        folder = type(folder)(moved.partition(": ")[2])
        home.ok("wait", job, timeout=90)
        assert folder.parent == home.home / "recovered"
        return
    check_done(home, job, folder)


@covers("repair --force")
def test_a_repair_asks_and_says_what_it_did(home, tmp_path):
    home.start("--slots", "1")
    job, _ = running_job(home, tmp_path)
    home.kill()
    assert "there is nothing to repair" in home.run("repair").stderr
    assert "add --yes" in home.fails(2, "repair", "--force")
    assert not (home.home / "store.sqlite.damaged~1~").exists()
    lab.on_terminal(home, "repair", "--force", typed="n\n", code=4)
    assert not (home.home / "store.sqlite.damaged~1~").exists()
    shown = lab.on_terminal(home, "repair", "--force", typed="y\n")
    assert "no damage was found" in shown
    assert f"live jobs that go on: 1: {job[:8]} job" in shown
    assert "0 of its" in shown
    damage(home, "jobs")
    shown = home.ok("repair", "--yes")
    assert f"lost: job {job[:8]} job ({tmp_path / 'job'}); submit it again" in shown
    home.start()
    assert home.json("jobs") == []


def overwrite(path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def test_a_damaged_log_is_refused_and_what_comes_after_it_is_saved(home, tmp_path):
    """What a disk did to the log of a node that was killed: 64 bytes a third of the way in."""
    home.start("--slots", "1")
    first = home.submit("--detach", str(lab.make_folder(tmp_path / "first", MAIN)))
    home.ok("wait", first)
    job, folder = running_job(home, tmp_path)
    late = home.submit("--detach", str(lab.make_folder(tmp_path / "late", MAIN)))
    home.kill()
    log = home.home / "store.sqlite-wal"
    overwrite(log, log.stat().st_size // 3, os.urandom(64))
    told = home.fails(4, "node", "--no-mdns")
    assert "store.sqlite-wal is broken in the middle" in told
    done = home.run("doctor", "--json")
    [finding] = [finding for finding in json.loads(done.stdout) if finding["check"] == "store"]
    assert (finding["ok"], finding["suggestion"]) == (False, "p2pq repair")
    shown = home.ok("repair", "--yes")
    assert "transactions after that which are saved, but for those pages: " in shown
    assert {f"{job[:8]} job", f"{late[:8]} late"} <= set(shown.replace("on: 2: ", ", ").replace("\n", ", ").split(", "))
    home.start("--slots", "2")
    home.ok("wait", late, timeout=60)
    check_done(home, job, folder, others=2)
    states = {view["job"]: (view["name"], view["state"]) for view in home.json("jobs")}
    assert states == {first: ("first", "done"), job: ("job", "done"), late: ("late", "done")}


def test_an_ended_job_of_which_something_is_lost_says_so(home, tmp_path):
    home.start("--slots", "1")
    job = home.submit("--array", "0-7", str(lab.make_folder(tmp_path / "job", MAIN)))
    home.ok("wait", job)
    home.stop()
    damage(home, "extras")
    shown = home.ok("repair", "--yes")
    assert "extras: 1 lost at least, 1 of its pages unreadable" in shown
    missing = "its name, its folder and where its results lie"
    assert f"lost of job {job[:8]} recovered: {missing}" in shown
    home.start()
    assert f"{job[:8]}: lost with a damaged store: {missing}" in home.run("jobs").stderr
    assert "8 done" in home.ok("show", job)
    assert f"lost with a damaged store: {missing}" in home.ok("show", job)


def test_a_home_whose_store_is_missing_is_not_taken_for_a_new_one(home, tmp_path):
    assert "no node has run here" in home.run("repair", "--yes").stderr
    home.start("--slots", "1")
    node = home.json("status")["id"]
    folder = lab.make_folder(tmp_path / "job", MAIN)
    home.ok("wait", home.submit(str(folder)))
    home.kill()
    for path in home.home.glob("store.sqlite*"):
        path.unlink()
    told = home.fails(4, "node", "--no-mdns")
    assert "the store is missing" in told
    assert "`p2pq repair`" in told
    done = home.run("doctor", "--json")
    assert done.returncode == 1
    [finding] = [finding for finding in json.loads(done.stdout) if finding["check"] == "store"]
    assert (finding["ok"], finding["suggestion"]) == (False, "p2pq repair")
    assert "the store is missing" in finding["detail"]
    assert "an empty one was begun" in home.ok("repair", "--yes")
    home.start("--slots", "1")
    assert (home.json("status")["id"], home.json("jobs")) == (node, [])
    home.ok("wait", home.submit(str(folder)))


REPAIR = ["repair.built", "repair.aside", "repair.marked", "repair.cleared", "repair.in-place"]


@pytest.mark.slow
@pytest.mark.parametrize("point", REPAIR)
def test_a_repair_that_is_killed_can_be_repeated(home, tmp_path, point):
    home.start("--slots", "2")
    job, folder = running_job(home, tmp_path)
    home.kill()
    damage(home, "settled")
    home.settings[crashpoints.VARIABLE] = point
    assert home.run("repair", "--yes").returncode == -signal.SIGKILL
    del home.settings[crashpoints.VARIABLE]
    if point != "repair.in-place":
        assert "`p2pq repair`" in home.fails(4, "node", "--no-mdns")
        home.ok("repair", "--yes")
    home.start("--slots", "2")
    check_done(home, job, folder)


@pytest.mark.slow
def test_what_a_worker_kept_is_taken_in_by_a_rebuilt_store(pair, tmp_path):
    """Alice is gone while bob finishes; her store forgets the leases; what bob kept counts, and does not run again."""
    alice, bob = pair
    options = ("--name", "alice", "--slots", "0", "--listen", alice.address)
    alice.stop()
    alice.start(*options)
    lab.until(lambda: any(peer["state"] == "up" for peer in bob.json("peers")), "they are linked")
    folder = lab.make_folder(tmp_path / "job", MAIN.replace("0.05", "2"))
    job = alice.submit("--array", "0-1", "--where", "bob", str(folder))
    lab.until(lambda: alice.json("show", job)["tasks"]["running"] == 2, "both tasks run at bob")
    alice.kill()
    lab.until(lambda: bob.json("status")["kept_results"] == 2, "bob has finished and keeps it")
    for table in ("leases", "attempts", "tasks"):
        damage(alice, table)
    report = alice.json("repair", "--yes")
    assert report["jobs"] == [job]
    alice.start(*options)
    alice.ok("wait", job, timeout=60)
    lab.until(lambda: bob.json("status")["kept_results"] == 0, "bob may forget it")
    with closing(sqlite3.connect(f"file:{alice.home / 'store.sqlite'}?mode=ro", uri=True)) as db:
        old = db.execute("SELECT count(*) FROM attempts WHERE epoch <= (SELECT value FROM meta WHERE key = 'rebuilt')")
        assert old.fetchall() == [(2,)], "adopted, not run again"
        assert db.execute("SELECT count(*) FROM attempts").fetchall() == [(2,)]
    assert sorted(path.name for path in (folder / "results").iterdir()) == ["0", "1"]
