"""kill -9 at every durable step, with real nodes: after the restart nothing is lost, nothing doubled, nothing half there.

The cases name every point of ``p2pq.daemon.crashpoints``; a point without a case fails the first test.
"""

import select
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import lab
import pytest

from p2pq.daemon import crashpoints, store
from p2pq.daemon.home import Home
from tests import packagekit
from tests.e2e.test_repair import REPAIR
from tests.golden.store import make as golden
from tests.netns.test_bridge import MOVING

pytestmark = pytest.mark.slow

STORE = Path(golden.__file__).with_name("v1.db")
TASKS = 4
MAIN = """
import os, pathlib, time
time.sleep(float(os.environ.get("PAUSE", "0")))
results = pathlib.Path(os.environ["P2PQ_RESULTS"])
(results / "out.txt").write_text(os.environ["P2PQ_TASK"])
"""
START = [
    "home.locked",
    *(
        f"secret.{step}:{time}" for time in (1, 2, 3, 4) for step in ("written", "renamed")
    ),  # token, key, root key, mesh
    "store.created",
    "store.renamed",
    "commit.EpochBegun.before",
    "commit.EpochBegun.after",
]
OLD = ["migration.copied", "migration.before", "migration.after", "prune.before", "prune.after"]
JOB = [
    "blob.written",  # of the folder
    "blob.renamed",
    "blobs.synced",
    "submit.packed",
    "submit.rotated",
    *(
        f"commit.{row}.{when}"
        for row in (
            "ExtraKept",
            "JobAdded",
            "LeaseGranted",
            "GrantKept",
            "ResultKept",
            "AttemptEnded",
            "ResultReleased",
        )
        for when in ("before", "after")
    ),
    "unpack.chunk",  # of the folder, where it runs
    "blob.written:4",  # of a result
    "blob.renamed:4",
    "blobs.synced:3",
    f"unpack.chunk:{TASKS + 2}",  # of results
    "delivery.staged:2",
    "delivery.aside",
    "delivery.in-place:2",
    *(f"commit.{row}.{when}" for row in ("TaskDelivered", "JobEnded") for when in ("before", "after")),
]
ASKED = [
    f"commit.{row}.{when}" for row in ("LeaseEnded", "TaskEnded", "TasksCancelled") for when in ("before", "after")
]
AGAIN = [f"commit.{row}.{when}" for row in ("JobReopened", "TasksRetried") for when in ("before", "after")]
HALTING = ["commit.JobHalted.before", "commit.JobHalted.after"]
FORGIVING = ["commit.FailureForgiven.before", "commit.FailureForgiven.after"]
BANNING = ["commit.BanKept.before", "commit.BanKept.after"]
BANNING_OWNERS = ["commit.OwnerBanKept.before", "commit.OwnerBanKept.after"]
ROTATING = ["commit.MeshKeysKept.before", "commit.MeshKeysKept.after"]
PEERING = ["commit.PeeringKept.before", "commit.PeeringKept.after"]
BANNING_ABROAD = ["commit.PeerBanKept.before", "commit.PeerBanKept.after"]
MESH = ["mesh.kept", "secret.written", "secret.renamed"]
JOINING = ["mesh.kept", "secret.written", "secret.renamed", "commit.PeerSeen.before", "commit.PeerSeen.after"]
WORKER = [f"commit.{row}.{when}:2" for row in ("ResultKept", "ResultReleased") for when in ("before", "after")]
MASTER = [f"commit.AttemptEnded.{when}:2" for when in ("before", "after")] + ["blobs.synced:3", "delivery.in-place:2"]
BUILDING = ["environment.built", "environment.in-place"]


def test_every_point_has_a_case():
    cases = {
        name.partition(":")[0]
        for name in (
            *START,
            *OLD,
            *REPAIR,
            *JOB,
            *ASKED,
            *AGAIN,
            *HALTING,
            *FORGIVING,
            *BANNING,
            *BANNING_OWNERS,
            *ROTATING,
            *PEERING,
            *BANNING_ABROAD,
            *MESH,
            *JOINING,
            *WORKER,
            *MASTER,
            *MOVING,
            *BUILDING,
        )
    }
    assert cases == set(crashpoints.POINTS)


def start_to_crash(host: lab.Host, point: str, *options: str) -> bool:
    """Run a node that will die at ``point``; return whether it became ready before."""
    host.settings[crashpoints.VARIABLE] = point
    host.process = host.popen("node", "--no-mdns", *options)
    readable, _, _ = select.select([host.process.stdout], [], [], lab.READY_S)
    assert readable
    host.ready = host.process.stdout.readline()
    del host.settings[crashpoints.VARIABLE]
    return bool(host.ready)


def has_crashed(host: lab.Host) -> None:
    """Wait until the node has died of its point."""
    _, said = host.process.communicate(timeout=30)
    assert host.process.returncode == -signal.SIGKILL, said
    host.process = None


def job_folder(path: Path) -> Path:
    """Make a folder with earlier results and a large file, whose chunks are blobs of their own."""
    folder = lab.make_folder(path / "job", MAIN)
    (folder / "results").mkdir()
    (folder / "results" / "earlier").write_text("earlier")
    return folder


def submit(host: lab.Host, folder: Path, *options: str) -> str:
    """Submit to a node that may die meanwhile; return the job's id if it was told."""
    return host.run("submit", "--detach", "--array", f"0-{TASKS - 1}", *options, str(folder)).stdout.strip()


def query(host: lab.Host, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{host.home / 'store.sqlite'}?mode=ro", uri=True)) as db:
        return db.execute(sql).fetchall()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def check_done(host: lab.Host, folder: Path, told: str, *, in_the_way: bool = False) -> None:
    """Check that the job, submitted anew only if it is not there, brings each result once."""
    jobs = [job["job"] for job in host.json("jobs")]
    assert len(jobs) <= 1
    if told:
        assert jobs == [told], "a job whose id was told is durable"
    if not jobs:
        assert "results" not in names(folder) or (folder / "results" / "earlier").exists()
        jobs = [submit(host, folder)]
    host.ok("wait", jobs[0], timeout=60)
    tasks = host.json("tasks", jobs[0])
    assert [task["state"] for task in tasks] == ["done"] * TASKS
    for number in range(TASKS):
        assert names(folder / "results" / str(number)) == {"out.txt"}
        assert (folder / "results" / str(number) / "out.txt").read_text() == str(number)
    moved = {"0.~1~"} if in_the_way else set()
    assert names(folder / "results") == {str(number) for number in range(TASKS)} | moved
    assert (folder / "results.~1~" / "earlier").read_text() == "earlier"
    assert {name for name in names(folder) if name.startswith((".p2pq", "results"))} == {"results", "results.~1~"}
    counted = query(host, "SELECT task, count(result), sum(fault IS NULL) FROM attempts GROUP BY n, task ORDER BY task")
    assert counted == [(number, 1, 1) for number in range(TASKS)], "settled once, and every other attempt was lost"
    lab.until(lambda: query(host, "SELECT count(*) FROM kept") == [(0,)], "no result is kept for nobody")


def check_works(host: lab.Host, path: Path) -> None:
    check_done(host, job_folder(path), "")


@pytest.mark.parametrize("point", START)
def test_at_a_first_start(home, tmp_path, point):
    start_to_crash(home, point)
    has_crashed(home)
    secrets = {
        path.name: path.read_bytes()
        for path in (home.home / "identity.key", *(home.home / "mesh").glob("*.state"))
        if path.exists()
    }
    home.start()
    for name, content in secrets.items():
        path = home.home / name if name == "identity.key" else home.home / "mesh" / name
        assert path.read_bytes() == content, "who it was, it is"
    check_works(home, tmp_path)


@pytest.mark.parametrize("point", OLD)
def test_with_a_store_of_an_older_version(home, tmp_path, point):
    store = home.home / "store.sqlite"
    store.write_bytes(STORE.read_bytes())
    with closing(sqlite3.connect(store, isolation_level=None)) as db:  # an ended job, which is old enough to be pruned
        db.executescript(
            "DELETE FROM jobs WHERE state IS NULL; DELETE FROM leases; DELETE FROM peers; DELETE FROM bans;"
        )
        db.executescript("DELETE FROM tasks WHERE n NOT IN (SELECT n FROM jobs);")
        db.executescript("DELETE FROM attempts WHERE n NOT IN (SELECT n FROM jobs); DELETE FROM kept;")
    for path in home.home.glob("store.sqlite*"):
        path.chmod(0o600)
    start_to_crash(home, point)
    has_crashed(home)
    home.start()
    lab.until(lambda: query(home, "SELECT count(*) FROM attempts") == [(0,)], "old jobs are pruned")
    assert home.json("jobs") == []
    with closing(sqlite3.connect(home.home / "store.sqlite.format1")) as db:
        assert db.execute("SELECT count(*) FROM jobs").fetchall() == [(1,)]
    check_works(home, tmp_path)


@pytest.mark.parametrize("point", JOB)
def test_while_a_job_runs(home, tmp_path, point):
    folder = job_folder(tmp_path)
    in_the_way = point == "delivery.aside"
    assert start_to_crash(home, point, "--slots", "2")
    if in_the_way:
        lab.make_folder(folder, MAIN.replace('"0"', '"0.5"'))
    told = submit(home, folder)
    if in_the_way:
        (folder / "results" / "0").mkdir(parents=True)
        (folder / "results" / "0" / "own").write_text("of the user")
    has_crashed(home)
    home.start("--slots", "2")
    check_done(home, folder, told, in_the_way=in_the_way)
    if in_the_way:
        assert (folder / "results" / "0.~1~" / "own").read_text() == "of the user"


@pytest.mark.parametrize("point", ASKED)
def test_while_something_is_asked_for(home, tmp_path, point):
    row = point.split(".")[1]
    folder = lab.make_folder(tmp_path / "long", "import time; time.sleep(600)")
    start_to_crash(home, point, "--slots", "1")
    job = home.submit("--array", "0-1", str(folder))
    lab.until(lambda: home.json("show", job)["tasks"]["running"], "a task runs")
    home.run("cancel", f"{job}.1" if row == "TaskEnded" else job)
    has_crashed(home)
    home.start("--slots", "1")
    states = [task["state"] for task in home.json("tasks", job)]
    gone = point.endswith("after")
    assert states[1] == ("cancelled" if gone else "pending")
    assert states[0] in ({"cancelled"} if gone and row != "TaskEnded" else {"pending", "running"})
    home.run("cancel", job)
    lab.until(lambda: home.json("show", job)["state"] == "cancelled", "the job ends")
    assert query(home, "SELECT count(*) FROM leases") == [(0,)]


@pytest.mark.parametrize("point", AGAIN)
def test_while_an_ended_job_is_opened_again(home, tmp_path, point):
    """Either nothing was asked, or what failed runs again: never a job that is neither over nor has anything to run."""
    flag = "import os, sys; sys.exit(7 if os.environ['P2PQ_ATTEMPT'] == '1' else 0)"
    folder = lab.make_folder(tmp_path / "job", flag)
    home.start()
    assert home.run("submit", "--retries", "0", "--array", "0-1", str(folder)).returncode == 1
    job = home.json("jobs")[0]["job"]
    home.stop()
    start_to_crash(home, point)
    home.run("retry", "--detach", job)
    has_crashed(home)
    home.start()
    if point.endswith("before"):
        assert home.json("show", job)["state"] == "failed"
        assert home.run("retry", job).returncode == 0
    else:
        assert home.run("wait", job).returncode == 0
    # An attempt that was granted in the same transaction died with the node and is made good by a third.
    tasks = home.json("tasks", job)
    assert [(task["state"], task["attempts"] in {2, 3}) for task in tasks] == [("done", True)] * 2
    assert query(home, "SELECT count(*) FROM leases") == [(0,)]


@pytest.mark.parametrize("point", HALTING)
def test_while_a_job_halts(home, tmp_path, point):
    """A failure that is durable counts after the crash, too: the job halts then, if it had not yet."""
    main = "import os, sys, time; i = int(os.environ['P2PQ_TASK']); time.sleep(600 * (i == 1)); sys.exit(3)"
    folder = lab.make_folder(tmp_path / "job", main)
    start_to_crash(home, point, "--slots", "2")
    job = home.submit("--retries", "0", "--halt", "now,fail=1", "--array", "0-5", str(folder))
    has_crashed(home)
    home.start("--slots", "2")
    assert home.run("wait", job, timeout=60).returncode == 1
    shown = home.json("show", job)
    assert (shown["state"], shown["halted"]) == ("cancelled", "halted after 1 failure")
    assert shown["tasks"]["failed"] + shown["tasks"]["cancelled"] == 6


@pytest.mark.parametrize("point", MESH)
def test_while_a_mesh_is_founded(home, tmp_path, point):
    home.start("--name", "n")
    home.stop()
    start_to_crash(home, point, "--name", "n")
    home.run("mesh", "init", "lab")
    has_crashed(home)
    home.start("--name", "n")
    assert home.json("mesh")["name"] in ({"lab"} if point == "mesh.kept" else {"lab", "n"})
    check_works(home, tmp_path)


@pytest.fixture
def two(tmp_path):
    """Give a founder that runs nothing itself, and a host on which nothing runs."""
    with lab.hosts(tmp_path, ["alice", "bob"]) as found:
        found[0].start("--name", "alice", "--slots", "0")
        yield found


@pytest.mark.parametrize("point", JOINING)
def test_while_a_mesh_is_joined(two, tmp_path, point):
    alice, bob = two
    bob.start("--name", "bob")
    bob.stop()
    start_to_crash(bob, point, "--name", "bob")
    code = alice.ok("invite").split()[0]
    bob.run("join", code, "--at", alice.address, "--yes")
    has_crashed(bob)
    bob.start("--name", "bob", "--peer", alice.address)
    if bob.json("mesh")["id"] != alice.json("mesh")["id"]:
        assert point.startswith("secret.written"), "what was kept, is kept"
        bob.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
    lab.until(lambda: any(peer["state"] == "up" for peer in alice.json("peers")), "bob is linked")
    check_works(alice, tmp_path)


@pytest.mark.parametrize(
    ("point", "who"),
    [(point, ["bob"]) for point in BANNING] + [(point, ["--owner", "eve"]) for point in BANNING_OWNERS],
)
def test_while_a_member_is_banned(two, point, who):
    alice, bob = two
    bob.start("--name", "bob")
    bob.ok("join", alice.ok("invite", "--owner", "eve").split()[0], "--at", alice.address, "--yes")
    options = ("--name", "alice", "--listen", alice.address)
    alice.stop()
    assert start_to_crash(alice, point, *options)
    lab.until(lambda: any(peer["state"] == "up" for peer in alice.json("peers")), "bob is linked")
    alice.run("ban", *who)
    has_crashed(alice)
    alice.start(*options)
    if point.endswith("after"):
        lab.until(lambda: any(peer["reason"] == "banned" for peer in alice.json("peers")), "bob is refused")
    else:
        lab.until(lambda: any(peer["state"] == "up" for peer in alice.json("peers")), "bob is linked")


@pytest.mark.parametrize("point", ROTATING)
def test_while_the_mesh_key_is_rotated(two, point):
    """The new key is there on both, or on neither; either way the two are linked again and it can be rotated."""
    alice, bob = two
    bob.start("--name", "bob")
    bob.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
    options = ("--name", "alice", "--listen", alice.address)
    before = alice.json("mesh")["key"]
    alice.stop()
    assert start_to_crash(alice, point, *options)
    lab.until(lambda: any(peer["state"] == "up" for peer in alice.json("peers")), "bob is linked")
    alice.run("mesh", "rotate-key")
    has_crashed(alice)
    alice.start(*options)
    after = alice.json("mesh")["key"]
    assert (after != before) == point.endswith("after")
    lab.until(lambda: bob.json("mesh")["key"] == after, "bob has the key that alice kept")
    alice.ok("mesh", "rotate-key")
    lab.until(lambda: bob.json("mesh")["key"] == alice.json("mesh")["key"] != after, "bob has the next one")


def peerings(host: lab.Host) -> list[str]:
    return [each["state"] for each in host.json("mesh", "peers")]


@pytest.mark.parametrize("point", PEERING)
def test_while_a_peering_is_accepted_and_while_it_is_ended(two, tmp_path, point):
    """It is there or not, ended or not, and either can be done again."""
    alice, bob = two
    bob.start("--name", "bob")
    bob.stop()
    assert start_to_crash(bob, point, "--name", "bob")
    offer = tmp_path / "offer"
    offer.write_text(alice.ok("mesh", "peer", "offer", bob.json("mesh")["id"]))
    accept = ["mesh", "peer", "accept", str(offer), "--from", alice.json("mesh")["id"]]
    bob.run(*accept)
    has_crashed(bob)
    bob.start("--name", "bob")
    assert peerings(bob) == (["holds"] if point.endswith("after") else [])
    bob.ok(*accept)
    assert peerings(bob) == ["holds"]
    bob.stop()
    assert start_to_crash(bob, point, "--name", "bob")
    bob.run("mesh", "peer", "end", "alice")
    has_crashed(bob)
    bob.start("--name", "bob")
    assert peerings(bob) == (["ended"] if point.endswith("after") else ["holds"])


@pytest.mark.parametrize("point", BANNING_ABROAD)
def test_while_a_ban_of_another_mesh_is_heard(two, tmp_path, point):
    """What was lost with the crash is had again with the next link."""
    alice, bob = two
    bob.start("--name", "bob")
    ids = [host.json("mesh")["id"] for host in two]
    text = alice.ok("mesh", "peer", "offer", ids[1])
    for host, more in ((bob, ["--from", ids[0]]), (alice, [])):
        (tmp_path / "file").write_text(text)
        text = host.ok("mesh", "peer", "accept", str(tmp_path / "file"), *more)
    options = ("--name", "alice", "--listen", alice.address)
    for host, other in ((alice, ids[1]), (bob, ids[0])):
        host.stop()
        (host.home / "config.toml").write_text(f'[[peer]]\nmesh = "{other}"\naccept = true\n')
    assert start_to_crash(alice, point, *options)
    bob.start("--name", "bob", "--peer", alice.address)
    lab.until(lambda: alice.json("status")["peers"] == 1, "they are linked")
    bob.ok("ban", "--owner", "eve")
    has_crashed(alice)
    assert heard_abroad(alice) == (1 if point.endswith("after") else 0)
    alice.start(*options)
    lab.until(lambda: heard_abroad(alice) == 1, "alice has heard of it", 60)


def heard_abroad(host: lab.Host) -> int:
    """Return how many words of other meshes' admins a node keeps."""
    with store.reading(Home(host.home)) as history:
        return len(history.peer_bans())


@pytest.mark.parametrize("point", FORGIVING)
def test_while_failures_are_held_against_a_machine(two, tmp_path, point):
    """Everything fails on bob: no task fails for it. A failure from before the crash that was not forgiven yet counts."""
    alice, bob = two
    main = "import os, sys, time; time.sleep(0.05); sys.exit(os.environ['P2PQ_NODE'] == 'bob')"
    folder = lab.make_folder(tmp_path / "job", main)
    bob.start("--name", "bob", "--slots", "2")
    bob.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
    options = ("--name", "alice", "--slots", "0", "--listen", alice.address)
    alice.stop()
    assert start_to_crash(alice, point, *options)
    lab.until(lambda: any(peer["slots"] for peer in alice.json("peers")), "bob is linked")
    job = alice.submit("--retries", "3", "--array", "0-59", str(folder))
    has_crashed(alice)
    alice.start(*options)
    alice.ok("wait", job, timeout=60)
    tasks = alice.json("tasks", job)
    assert [task["node"] for task in tasks] == ["alice"] * 60


@pytest.mark.parametrize(("who", "point"), [("bob", each) for each in WORKER] + [("alice", each) for each in MASTER])
def test_while_another_machine_runs_the_job(two, tmp_path, who, point):
    alice, bob = two
    bob.start("--name", "bob", "--slots", "2")
    bob.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
    victim, options = {
        "alice": (alice, ("--name", "alice", "--slots", "0", "--listen", alice.address)),
        "bob": (bob, ("--name", "bob", "--slots", "2", "--peer", alice.address)),
    }[who]
    victim.stop()
    assert start_to_crash(victim, point, *options)
    folder = job_folder(tmp_path)
    told = submit(alice, folder, "--where", "bob")
    has_crashed(victim)
    victim.start(*options)
    check_done(alice, folder, told)
    assert alice.json("status")["kept_results"] == 0
    lab.until(lambda: query(bob, "SELECT count(*) FROM kept") == [(0,)], "the worker keeps nothing for nobody")


@pytest.mark.sandbox
@pytest.mark.parametrize("point", BUILDING)
def test_while_an_environment_is_built(home, tmp_path, point):
    packagekit.wheel(tmp_path / "packages", "greeting", "WORDS = 'hello'")
    places = {"INDEX": "none", "FIND_LINKS": str(tmp_path / "packages")}
    home.settings |= {f"P2PQ_ENVIRONMENTS_{key}": value for key, value in places.items()}
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "main.py").write_text("import greeting\nprint(greeting.WORDS)\n")
    (folder / "requirements.txt").write_text("greeting\n")
    assert start_to_crash(home, point)
    told = home.run("submit", "--detach", str(folder)).stdout.strip()
    has_crashed(home)
    home.start()
    home.ok("wait", told, timeout=60)
    assert "hello" in home.ok("logs", told)
    built = home.home / "environments" / "built"
    assert len(list(built.iterdir())) == home.json("status")["disk"]["environments"] == 1
