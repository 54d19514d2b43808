"""Two clusters without a route between them, and one host that stands in both: a bridge, which carries links or batches."""

import contextlib
import json
import os
import re
import secrets
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pq.daemon import crashpoints
from p2pq.wire import control
from tests.e2e import lab
from tests.netns.lan import Host, Lan, capture, into_one_mesh, linked, opened, start_all

HERE, THERE = ("anna", "bert"), ("dora", "emil")
WAIT_S = 120.0
SECRET = f"calico-marmot-{secrets.token_hex(6)}"
"""Another one in each process: a node that starts looks through the command lines of its machine, which all hosts here share."""
SLEEPS = """
import os, sys, time
print("begun", flush=True)
time.sleep(float(sys.argv[1]))
open(os.environ["P2PQ_RESULTS"] + "/value.txt", "w").write(os.environ["P2PQ_TASK"] + " SECRET")
print("ended SECRET", flush=True)
""".replace("SECRET", SECRET)
MUCH = 5_000_000
LEAVES_MUCH = f"""
open(os.environ["P2PQ_RESULTS"] + "/much.bin", "wb").write(os.urandom({MUCH}))
"""
FAR = "far=yes"
CUT_S = 8.0
"""Shorter than it takes to give up a silent link, and than twice the length of a task, when it would be tried elsewhere."""
MOVING = ["commit.LeaseMoved.before", "commit.LeaseMoved.after"]
JOINING = 9
"""A network that all are on while they join; then its cables are pulled."""


@dataclass(frozen=True)
class Clusters:
    """The bridge, two hosts of one cluster and two of another, all of one mesh; only those are labelled ``far``."""

    lan: Lan
    hosts: list[Host]
    batches: bool

    @property
    def gate(self) -> Host:
        """The bridge."""
        return self.hosts[0]

    @property
    def anna(self) -> Host:
        """Whoever submits, in the first cluster."""
        return self.hosts[1]


@pytest.fixture(scope="module", params=[False, True], ids=["carries links", "batches"])
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Give the clusters; every test leaves them whole."""
    batches = bool(request.param)
    with opened(tmp_path_factory.mktemp("clusters")) as lan:
        gate = lan.add("gate", (0, 1))
        gate.configure(f"[node]\naccept = false\n[bridge]\nenabled = true\nbatch = {str(batches).lower()}\n")
        here = [lan.add(name) for name in HERE]
        there = [lan.add(name, (1,)) for name in THERE]
        for host in there:
            host.configure('[node]\nlabels = { far = "yes" }\n')
        into_one_mesh([gate, *here, *there])
        yield Clusters(lan, lan.hosts, batches)


@pytest.fixture
def clusters(mesh: Clusters, tmp_path: Path) -> Iterator[Clusters]:
    """Give the clusters to one test; what their nodes have logged meanwhile is shown if it fails.

    What an earlier test cut off hears at last what was said to it meanwhile, and would take that for late, or say it again.
    """
    folder = lab.make_folder(tmp_path / "first", SLEEPS)
    mesh.anna.ok("submit", "--need", FAR, "--array", "0-7", str(folder), "0.1", timeout=WAIT_S)
    before = [len(host.log()) for host in mesh.hosts]
    yield mesh
    for host, length in zip(mesh.hosts, before, strict=True):
        print(f"--- {host.name}: {host.log()[length:]}")
    linked(mesh.hosts)


def values(folder: Path, tasks: int) -> list[str]:
    return [(folder / f"results/{task}/value.txt").read_text() for task in range(tasks)]


def wanted(tasks: int) -> list[str]:
    return [f"{task} {SECRET}" for task in range(tasks)]


def test_a_job_spreads_over_both_clusters_and_the_bridge_reads_nothing(clusters: Clusters, tmp_path: Path) -> None:
    """The mark is in its script, an input, its arguments, what it prints and what comes back, in messages and in blobs."""
    gate, anna = clusters.gate, clusters.anna
    speaks_for = {*HERE, *THERE} if clusters.batches else set()
    assert {each["node"] for each in gate.json("status")["bridge"]} == speaks_for
    assert ("SPEAKS TO" in gate.ok("status")) == clusters.batches
    folder = lab.make_folder(tmp_path / "job", SLEEPS)
    marker = SECRET.encode()
    (folder / "input.bin").write_bytes(b"".join(marker + os.urandom(200) for _ in range(2000)))
    with capture(clusters.lan, tmp_path / "frames.pcap"):
        job = anna.detach("--array", "0-199", str(folder), "0.2", SECRET)
        lab.until(lambda: sum(task.state == "done" for task in anna.tasks(job)) > 50, "it is under way", 60)
        memories = [memory_of(gate)]
        assert marker in memory_of(anna), "whoever may read it has it in memory"
        anna.ok("wait", job, timeout=WAIT_S)
        memories.append(memory_of(gate))
    assert values(folder, 200) == wanted(200)
    tasks = json.loads(anna.ok("tasks", "--json", job))
    by = {(task["node"], tuple(task["via"])) for task in tasks}
    print(Counter((task["node"], *task["via"]) for task in tasks))
    assert by <= {*((name, ()) for name in HERE), *((name, ("gate",)) for name in THERE)}
    assert {node for node, _ in by} & set(THERE)
    proved(anna, job, 200)
    assert marker in (folder / "results/0/value.txt").read_bytes()
    kept = [path.read_bytes() for path in gate.home.rglob("*") if path.is_file()]
    assert len(kept) > 3
    for held in (*memories, *kept, (tmp_path / "frames.pcap").read_bytes()):
        assert marker not in held
    assert all(b"p2pq" in memory for memory in memories)


def proved(host: Host, job: str, tasks: int) -> None:
    """See to it that all results are proved, those too that bridges handed on."""
    report = json.loads(host.ok("verify", "--json", job))
    assert (report["results"], report["verified"], report["unkept"]) == (tasks, tasks, []), report


def memory_of(host: Host) -> bytes:
    """Return all that the node's process holds in memory of its own; it stands still meanwhile, or its memory would change."""
    pid = int((host.home / "node.lock").read_text())
    pieces = []
    os.kill(pid, signal.SIGSTOP)
    try:
        lab.until(lambda: b") T " in Path(f"/proc/{pid}/stat").read_bytes(), "it stands still")
        with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw.p", line)
                if found is not None:
                    start, stop = (int(each, 16) for each in found.groups())
                    memory.seek(start)
                    pieces.append(memory.read(stop - start))
    finally:
        os.kill(pid, signal.SIGCONT)
    return b"".join(pieces)


def test_logs_follow_live_and_cancel_reaches_the_far_side(clusters: Clusters, tmp_path: Path) -> None:
    anna = clusters.anna
    folder = lab.make_folder(tmp_path / "job", SLEEPS)
    job = anna.detach("--need", FAR, "--time", "1h", str(folder), "600")
    # A bridge that batches says who has got an attempt with its next report; until then it is named itself.
    [task] = lab.until(lambda: [each for each in anna.tasks(job) if each.node in THERE], "it runs, and where is known")
    assert (task.state, task.via) == ("running", ("gate",))
    lab.until(lambda: "begun" in anna.ok("logs", job), "its output is here while it runs")
    lab.until(lambda: f"running on {task.node} " in anna.ok("why", f"{job}.0"), "that is said in a sentence")
    with following(anna, job) as line:
        assert line(10) == "begun\n"
        assert processes(job)
    asked = time.monotonic()
    assert anna.ask(control.CancelJob(job=job), control.JobView)
    lab.until(lambda: not processes(job), "nothing of it runs", 10)
    print(f"cancelled on the far side after {time.monotonic() - asked:.2f} s")
    assert time.monotonic() - asked < 2


@contextlib.contextmanager
def following(host: Host, job: str) -> Iterator[Callable[[float], str]]:
    """Follow what a job prints; give who returns the next line, if it comes within so many seconds."""
    with host.popen("logs", "--follow", job) as follow:
        assert follow.stdout is not None

        def line(seconds: float) -> str:
            readable, _, _ = select.select([follow.stdout], [], [], seconds)
            return follow.stdout.readline() if readable else ""

        try:
            yield line
        finally:
            follow.kill()


def processes(job: str) -> list[str]:
    """Return the processes that run a task of a job, wherever in this machine."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if f"P2PQ_JOB={job}".encode() in (each / "environ").read_bytes():
                found.append(each.name)
        except OSError:
            continue
    return found


def test_what_many_far_tasks_need_crosses_the_bridge_once(clusters: Clusters, tmp_path: Path) -> None:
    lan, gate, anna = clusters.lan, clusters.gate, clusters.anna
    folder = lab.make_folder(tmp_path / "job", SLEEPS + LEAVES_MUCH)
    size = 100 << 20
    (folder / "input.bin").write_bytes(os.urandom(size))
    into, out, back = lan.crossed(anna, 0), lan.crossed(gate, 1), lan.crossed(gate, 0)
    job = anna.detach("--need", FAR, "--array", "0-11", str(folder), "0.5")
    anna.ok("wait", job, timeout=WAIT_S)
    into, out, back = lan.crossed(anna, 0) - into, lan.crossed(gate, 1) - out, lan.crossed(gate, 0) - back
    print(f"{size} bytes of input, {into} from the owner, {out} from the bridge to {len(THERE)} far hosts, {back} back")
    assert values(folder, 12) == wanted(12)
    left = sum((folder / f"results/{task}/much.bin").stat().st_size for task in range(12))
    assert left == 12 * MUCH
    assert left < back < 1.3 * left, "results cross it once, too"
    assert into < 1.1 * size
    assert out < 1.3 * size, "the far hosts had it from each other"


@pytest.mark.parametrize("how", ["killed", "cut from above", "cut from below"])
def test_a_bridge_in_trouble_loses_nothing(how: str, clusters: Clusters, tmp_path: Path) -> None:
    """What runs below goes on and ends meanwhile; nothing runs twice, though the tasks end while nobody can hear of it."""
    lan, gate, anna = clusters.lan, clusters.gate, clusters.anna
    folder = lab.make_folder(tmp_path / "job", SLEEPS)
    job = anna.detach("--need", FAR, "--array", "0-3", str(folder), str(CUT_S - 2))
    lab.until(lambda: len(processes(job)) >= 4, "all run", 30)
    if how == "killed":
        gate.kill()
        assert len(processes(job)) >= 4
        gate.start()
    else:
        net = 0 if how == "cut from above" else 1
        lan.pull(gate, net)
        cut = time.monotonic()
        assert len(processes(job)) >= 4
        lab.until(lambda: time.monotonic() - cut >= CUT_S, "it was cut off long enough", CUT_S + 1)
        lan.put_back(gate, net)
    back = time.monotonic()
    anna.ok("wait", job, timeout=WAIT_S)
    print(f"{how}: done {time.monotonic() - back:.1f} s after it was back")
    assert values(folder, 4) == wanted(4)
    assert [task.attempts for task in anna.tasks(job)] == [1] * 4


@pytest.mark.parametrize("mesh", [True], indirect=True, ids=["batches"])
def test_a_long_job_survives_all_that_can_happen_to_a_bridge(clusters: Clusters, tmp_path: Path) -> None:
    """In mid-job it is killed, cut off above, cut off below and killed again: each task ends once, and most run once."""
    lan, gate, anna = clusters.lan, clusters.gate, clusters.anna
    folder = lab.make_folder(tmp_path / "job", SLEEPS)
    tasks = 120
    job = anna.detach("--need", FAR, "--array", f"0-{tasks - 1}", str(folder), "0.3")

    def done() -> int:
        return sum(task.state == "done" for task in anna.tasks(job))

    for number, trouble in enumerate(("killed", "above", "below", "killed"), 1):
        lab.until(lambda number=number: done() >= number * tasks // 6, f"it goes on, {trouble} next", WAIT_S)
        if trouble == "killed":
            gate.kill()
            gate.start()
        else:
            net = 0 if trouble == "above" else 1
            lan.pull(gate, net)
            time.sleep(4)  # so long it is cut off; what was leased ahead may end sooner
            lan.put_back(gate, net)
    anna.ok("wait", job, timeout=WAIT_S)
    assert values(folder, tasks) == wanted(tasks)
    assert sorted(path.name for path in folder.glob("results*")) == ["results"], "written out twice"
    assert len(list((folder / "results").iterdir())) == tasks
    attempts = Counter(task.attempts for task in anna.tasks(job))
    print(f"tasks by attempts: {dict(attempts)}")
    for task in range(tasks):
        tries = anna.ask(control.Attempts(job=job, task=task), control.AttemptView)
        assert [each.state for each in tries].count("done") == 1, tries
    proved(anna, job, tasks)


@pytest.mark.parametrize("point", MOVING)
def test_while_a_lease_moves_from_a_bridge_to_a_link(point: str, lan: Lan, tmp_path: Path) -> None:
    """The owner dies as it writes down that its worker is no leaf any more: what runs there goes on and counts, or runs again."""
    gate, anna, dora = lan.add("gate", (0, 1)), lan.add("anna", (0, JOINING)), lan.add("dora", (1, JOINING))
    gate.configure("[node]\naccept = false\n[bridge]\nenabled = true\nbatch = true\n")
    dora.configure('[node]\nlabels = { far = "yes" }\n')
    hosts = [gate, anna, dora]
    into_one_mesh(hosts)
    for host in hosts:
        host.kill()
    for host in (anna, dora):
        lan.pull(host, JOINING)
    anna.settings[crashpoints.VARIABLE] = point
    start_all(hosts)
    linked(hosts, 60)
    folder = lab.make_folder(tmp_path / "job", SLEEPS)
    job = anna.detach("--need", FAR, str(folder), "30")
    lab.until(lambda: anna.tasks(job)[0].via == ("gate",), "it runs behind the bridge", 30)
    for host in (anna, dora):
        lan.put_back(host, JOINING)
    anna.process.communicate(timeout=60)  # it has died of its point
    anna.process = None
    del anna.settings[crashpoints.VARIABLE]
    anna.start()
    anna.ok("wait", job, timeout=WAIT_S)
    assert (folder / "results/value.txt").read_text() == wanted(1)[0]
    states = [each.state for each in anna.ask(control.Attempts(job=job, task=0), control.AttemptView)]
    # What was not written down is not known: then the bridge, which has the lease no more, may be heard first, and it runs again.
    assert states == ["done"] or (point.endswith("before") and states == ["lost", "done"])


@pytest.mark.parametrize("batches", [False, True], ids=["carry links", "batch"])
def test_three_levels_deep(batches: bool, lan: Lan, tmp_path: Path) -> None:
    """Four networks in a row, three bridges: a task runs at the far end, and everything of it is seen at this one."""
    gates = [lan.add(name, (net, net + 1, JOINING)) for net, name in enumerate(("gate", "hugo", "ines"))]
    anna, zora = lan.add("anna", (0, JOINING)), lan.add("zora", (3, JOINING))
    for each in gates:
        each.configure(f"[node]\naccept = false\n[bridge]\nenabled = true\nbatch = {str(batches).lower()}\n")
    zora.configure('[node]\nlabels = { far = "yes" }\n')
    hosts = [*gates, anna, zora]
    into_one_mesh(hosts, "--caps", "work,submit,bridge")
    for host in hosts:
        host.kill()
        lan.pull(host, JOINING)
    start_all(hosts)
    linked(hosts, 60)
    folder = lab.make_folder(tmp_path / "job", SLEEPS + LEAVES_MUCH)
    (folder / "input.bin").write_bytes(os.urandom(MUCH))
    job = anna.detach("--need", FAR, "--array", "0-3", "--time", "1h", str(folder), "4")
    lab.until(lambda: anna.tasks(job)[0].node == "zora", "it runs, and where is known", 30)
    lab.until(lambda: "begun" in anna.ok("logs", f"{job}.0"), "its output is here while it runs", 20)
    anna.ok("wait", job, timeout=WAIT_S)
    assert values(folder, 4) == wanted(4)
    assert {(folder / f"results/{task}/much.bin").stat().st_size for task in range(4)} == {MUCH}
    assert {(task.node, task.via) for task in anna.tasks(job)} == {("zora", ("gate", "hugo", "ines"))}
    proved(anna, job, 4)
    endless = anna.detach("--need", FAR, str(folder), "600")
    lab.until(lambda: processes(endless), "it runs")
    anna.ok("cancel", endless)
    lab.until(lambda: not processes(endless), "nothing of it runs", 2)
