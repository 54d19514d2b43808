"""Whose word results are, with real nodes: with the node and without it, and with the evidence tampered with."""

import json
import shutil
import sqlite3
from contextlib import closing

import lab
import pytest

from tests.covers import covers

MAIN = """
import os, pathlib
task, results = os.environ["P2PQ_TASK"], pathlib.Path(os.environ["P2PQ_RESULTS"])
(results / "out.txt").write_text(f"result of {task}\\n" * 100)
(results / "deep").mkdir()
(results / "deep" / "noise.bin").write_bytes(os.urandom(5000))
(results / "empty").touch()
(results / "link").symlink_to("out.txt")
print("hello from", task)
if task == "4" and os.environ["P2PQ_ATTEMPT"] == "1":
    raise SystemExit(3)
"""
TASKS = 5


def change(host: lab.Host, *statements: str) -> None:
    """Change the store of a stopped node as somebody who knows its format would."""
    with closing(sqlite3.connect(host.home / "store.sqlite", isolation_level=None)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0, statement
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def verified(host: lab.Host, job: str, code: int = 0, *tasks: str) -> dict[str, object]:
    done = host.run("verify", job, *tasks, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@covers("verify", "verify --json")
def test_results_of_another_node_and_of_this_one(pair, tmp_path):
    alice, bob = pair
    folder = lab.make_folder(tmp_path / "job", MAIN)
    assert "no job" in alice.fails(4, "verify", "abcdefgh")
    job = alice.submit("--array", f"0-{TASKS - 1}", "--where", "bob", str(folder))
    alice.ok("wait", job, timeout=90)
    said = alice.ok("verify", job).splitlines()
    assert said[0].startswith("5 of 5 results verified: signed by 1 node (bob (")
    assert said[1:] == ["20 files compared: what was signed"]
    found = alice.json("verify", job[:8])
    [signer] = found["signers"]
    bob_id = bob.json("status")["id"]
    assert (found["results"], found["verified"], found["refuted"], found["unkept"]) == (TASKS, TASKS, [], [])
    assert (signer["node"], signer["name"], signer["results"], signer["banned"]) == (bob_id, "bob", TASKS, None)
    assert (found["files"]["same"], found["files"]["differ"], found["files"]["gone"]) == (4 * TASKS, [], [])
    assert verified(alice, job, 0, "4", "1")["results"] == 2
    assert verified(alice, f"{job}.4")["results"] == 1
    assert "no task 5" in alice.fails(4, "verify", job, "5")
    assert "is not a task" in alice.fails(2, "verify", job, "all")

    own = alice.submit("--where", "local", str(lab.make_folder(tmp_path / "own", MAIN)))
    alice.ok("wait", own, timeout=90)
    assert alice.ok("verify", own).startswith("1 of 1 result verified: signed by 1 node (alice")
    assert bob.fails(4, "verify", job).startswith("there is no job")

    alice.ok("ban", "bob")
    [signer] = verified(alice, job)["signers"]
    assert signer["banned"].endswith("Z")
    assert "banned since" in alice.ok("verify", job)

    alice.stop()
    assert verified(alice, job)["verified"] == TASKS, "without a node, too"
    alice.start("--name", "alice")
    assert alice.json("show", job)["state"] == "done"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Give a stopped node with a job that another node has run, and that job's id; the store is put back after each test."""
    base = tmp_path_factory.mktemp("finished")
    with lab.hosts(base, ["alice", "bob"]) as [alice, bob]:
        alice.start("--name", "alice")
        bob.start("--name", "bob")
        bob.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
        lab.until(lambda: any(peer["state"] == "up" for peer in alice.json("peers")), "bob is linked")
        job = alice.submit("--array", f"0-{TASKS - 1}", "--where", "bob", str(lab.make_folder(base / "job", MAIN)))
        alice.ok("wait", job, timeout=90)
        own = alice.submit("--where", "local", str(lab.make_folder(base / "own", MAIN)))
        alice.ok("wait", own, timeout=90)
        alice.stop()
        change(alice, "UPDATE meta SET value = value")
        shutil.copyfile(alice.home / "store.sqlite", base / "whole.sqlite")
        yield alice, job, base / "whole.sqlite"


@pytest.fixture
def stopped(finished):
    host, job, whole = finished
    yield host, job
    for suffix in ("-wal", "-shm"):
        (host.home / f"store.sqlite{suffix}").unlink(missing_ok=True)
    shutil.copyfile(whole, host.home / "store.sqlite")


def test_files_that_are_not_what_was_signed(stopped):
    host, job = stopped
    results = host.home.parent / "job" / "results"
    kept = results.with_name("kept")
    shutil.copytree(results, kept, symlinks=True)
    (results / "3" / "out.txt").write_text("result of 4\n" * 100)
    (results / "1" / "empty").write_text("not any more")
    (results / "0" / "link").unlink()
    (results / "0" / "link").symlink_to("empty")
    (results / "2" / "deep" / "noise.bin").unlink()
    found = verified(host, job, 1)
    assert found["verified"] == TASKS, "what was signed is one thing, what became of it another"
    differ = ["results/0/link", "results/1/empty", "results/3/out.txt"]
    assert (found["files"]["differ"], found["files"]["gone"]) == (differ, ["results/2/deep/noise.bin"])
    done = host.run("verify", job)
    assert done.returncode == 1
    assert f"not what was signed: {', '.join(differ)}" in done.stdout.splitlines()
    assert "not there any more: results/2/deep/noise.bin" in done.stdout.splitlines()
    shutil.rmtree(results)
    assert len(verified(host, job)["files"]["gone"]) == 4 * TASKS
    kept.rename(results)
    assert verified(host, job)["files"]["same"] == 4 * TASKS

    host_blobs, aside = host.home / "blobs", host.home / "aside"
    host_blobs.rename(aside)
    found = verified(host, job)
    assert (found["verified"], found["files"]["same"], found["files"]["unlisted"]) == (TASKS, 0, TASKS)
    assert "the files of 5 results cannot be compared: the list of them made room" in host.ok("verify", job)
    shutil.rmtree(host_blobs)  # made anew, and empty
    aside.rename(host_blobs)


OF = "(SELECT {} FROM attempts WHERE n = 1 AND task = {} AND outcome IS NOT NULL ORDER BY attempt DESC LIMIT 1)"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            f"UPDATE attempts SET result = {OF.format('result', 2)} WHERE n = 1 AND task = 1",
            "what was delivered is not",
        ),
        (
            f"UPDATE attempts SET proof = {OF.format('proof', 2)} WHERE n = 1 AND task = 1",
            "its signed result does not hold this attempt",
        ),
        ("UPDATE attempts SET counter = counter + 1000 WHERE n = 1 AND task = 1", "its grant is for other attempts"),
        ("UPDATE attempts SET chain = NULL WHERE n = 1 AND task = 1", "no certificates of the node"),
        (
            "UPDATE attempts SET ended = ended + 40000000000 WHERE n = 1 AND task = 1",
            "the certificate of the node that signed its result had expired",
        ),
        ("UPDATE attempts SET proof = NULL WHERE n = 1 AND task = 1", "no evidence was kept"),
        (
            "UPDATE proofs SET signed = CAST(substr(signed, 1, length(signed) - 1) || x'00' AS BLOB) WHERE n = 1",
            "not signed by the node",
        ),
        (
            "UPDATE grants SET signed = CAST(substr(signed, 1, length(signed) - 1) || x'00' AS BLOB) WHERE n = 1",
            "not signed by this node",
        ),
        ("UPDATE grants SET signed = (SELECT signed FROM grants WHERE n = 2) WHERE n = 1", "another job or manifest"),
        ("UPDATE chains SET certs = x'91' || substr(certs, 2)", "is damaged"),
        (
            "UPDATE jobs SET manifest = (SELECT manifest FROM jobs WHERE n = 2) WHERE n = 1",
            "its manifest is not signed",
        ),
        ("UPDATE jobs SET reply_secret = (SELECT reply_secret FROM jobs WHERE n = 2) WHERE n = 1", "does not open"),
    ],
)
def test_evidence_that_was_tampered_with(stopped, statement, reason):
    host, job = stopped
    assert host.ok("verify", job).startswith("5 of 5 results verified")
    change(host, statement)
    done = host.run("verify", job)
    unkept = reason.startswith("no ")
    assert done.returncode == (4 if unkept or reason == "is damaged" else 1), done.stdout + done.stderr
    assert reason in done.stdout + done.stderr
    assert "5 of 5 results verified" not in done.stdout
    if " task = 1" in statement:
        assert done.stdout.startswith("4 of 5 results verified"), done.stdout
        assert f"task 1: {reason}" in done.stdout


def test_what_ended_under_an_older_version_has_no_evidence(stopped):
    host, job = stopped
    change(host, "UPDATE attempts SET proof = NULL, chain = NULL", "DELETE FROM grants", "DELETE FROM proofs")
    done = host.run("verify", job)
    assert done.returncode == 4
    said = done.stdout.splitlines()
    assert said[0] == "0 of 5 results verified"
    assert said[1].startswith("tasks 0, 1, 2, 3, 4: no evidence was kept: it ended under an older version")
    assert verified(host, job, 4)["unkept"][0]["tasks"] == [0, 1, 2, 3, 4]
