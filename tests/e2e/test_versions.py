"""This version and the released one in one mesh, the released one from the history of this very repository."""

import socket
import subprocess
from pathlib import Path

import lab
import pytest

from p2pq.wire.messages import MINOR

RELEASE = "4fe52aa535288447ef4b04a5a0fea513fbe36abe"
"""p2pq 0.1.0: minor version 1 of the protocol, format 1 of the store."""
WORK = """\
import os, pathlib, time
time.sleep(0.4)
task = int(os.environ["P2PQ_TASK"])
pathlib.Path(os.environ["P2PQ_RESULTS"], "answer").write_text(f"{task * task}")
with pathlib.Path(os.environ["P2PQ_RESULTS"], "tries").open("a") as file:
    file.write("once")
print(f"task {task}")
"""
TASKS = 8
ANSWERS = {str(task): f"{task * task}" for task in range(TASKS)}


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """Give a folder with the package of the release."""
    folder = tmp_path_factory.mktemp("released")
    archive = subprocess.run(
        ["git", "-C", str(lab.ROOT), "archive", RELEASE, "p2pq"], capture_output=True, timeout=60, check=False
    )
    if archive.returncode:
        pytest.skip(f"needs the history of the repository: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, timeout=60, check=True)
    return folder


@pytest.fixture(scope="module", params=["the old one invites", "the new one invites"])
def mixed(request, tmp_path_factory, released):
    """Give two linked hosts of one mesh, an old one and a new one; either may have invited the other."""
    with lab.hosts(tmp_path_factory.mktemp("mixed"), ["old", "new"]) as found:
        old, new = found
        old.package = released
        for host, name in ((old, "old"), (new, "new")):
            start(host, name)
        assert (version(old), version(new)) == ("1", str(MINOR)), "the two run what they should"
        inviter, joiner = (old, new) if request.param.startswith("the old") else (new, old)
        code = inviter.ok("invite").split()[0]
        joiner.ok("join", code, "--at", inviter.address, "--yes")
        linked(old, new)
        yield old, new


def start(host: lab.Host, name: str) -> None:
    """Start a node that listens where nobody else does, and there again after a restart."""
    listen = host.address if host.ready else f"127.0.0.1:{free_port()}"
    host.start("--name", name, "--slots", "2", "--listen", listen, "--label", f"at={name}")


def free_port() -> int:
    """Return a port that nobody listens on; port 0 would take 9476 first, as other nodes on this machine do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def version(host: lab.Host) -> str:
    """Return the newest minor version that a host's package speaks, asked of that package."""
    argv = [*host.argv()[:1], "-c", "from p2pq.wire.messages import MINOR; print(MINOR)"]
    done = subprocess.run(argv, env=host.environment(), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def linked(*hosts: lab.Host) -> None:
    for host in hosts:
        lab.until(lambda host=host: [peer["state"] for peer in host.json("peers")] == ["up"], "they are linked")
        lab.until(lambda host=host: host.json("status")["sandbox"] == "strict", "the sandbox is tested")


def answers(folder: Path) -> dict[str, str]:
    """Return what the tasks of a job wrote, each of which must have been delivered once."""
    results = folder / "results"
    assert [path.read_text() for path in results.glob("*/tries")] == ["once"] * TASKS
    return {path.parent.name: path.read_text() for path in results.glob("*/answer")}


def submit(host: lab.Host, at: str, folder: Path) -> str:
    return host.submit("--array", f"0-{TASKS - 1}", "--need", f"at={at}", str(lab.make_folder(folder, WORK)))


def test_each_runs_the_tasks_of_the_other(mixed, tmp_path):
    old, new = mixed
    jobs = [(old, submit(old, "new", tmp_path / "a")), (new, submit(new, "old", tmp_path / "b"))]
    for host, job in jobs:
        host.ok("wait", job)
        assert host.ok("logs", f"{job}.3") == "task 3\n"
    assert answers(tmp_path / "a") == answers(tmp_path / "b") == ANSWERS


def test_either_may_be_killed_and_started_again(mixed, tmp_path):
    """First the worker of each job, then its master."""
    old, new = mixed
    for master, worker, name in ((old, new, "new"), (new, old, "old")):
        job = submit(master, name, tmp_path / f"job-{name}")
        for victim in (worker, master):
            done = master.json("show", job)["tasks"]["done"]
            lab.until(lambda: master.json("show", job)["tasks"]["done"] > done, "it gets on", 90)  # noqa: B023
            victim.kill()
            start(victim, "old" if victim is old else "new")
        master.ok("wait", job)
        assert answers(tmp_path / f"job-{name}") == ANSWERS
        linked(old, new)


def test_one_command_line_speaks_to_the_node_of_the_other_version(tmp_path, released):
    """Whoever installs before stopping is not stuck; and the way back is refused with what to do."""
    with lab.hosts(tmp_path, ["home"]) as [home]:
        for node, command in ((released, lab.ROOT), (lab.ROOT, released)):
            home.package = node
            start(home, "home")
            home.package = command
            assert home.json("status")["name"] == "home"
            home.ok("submit", str(lab.make_folder(tmp_path / "job", WORK)))
            assert (tmp_path / "job" / "results" / "answer").read_text() == "0"
            home.ok("stop")
            home.process.communicate(timeout=lab.END_S)
            home.process = None
        with pytest.raises(AssertionError, match=r"written by a newer p2pq .* install that version again"):
            start(home, "home")
        home.process = None  # it is gone


def test_an_old_home_goes_on_under_the_new_version(tmp_path, released):
    """A node is stopped by kill -9 in the middle of a job, its own and another's, upgraded, and started again."""
    with lab.hosts(tmp_path, ["one", "two"], package=released) as [one, two]:
        start(one, "one")
        start(two, "two")
        two.ok("join", one.ok("invite").split()[0], "--at", one.address, "--yes")
        linked(one, two)
        for upgraded, other, name in ((one, two, "two"), (two, one, "one")):
            job = submit(upgraded, name, tmp_path / f"job-{name}")
            kept = submit(other, "one" if upgraded is one else "two", tmp_path / f"job-{name}-too")
            lab.until(lambda: upgraded.json("show", job)["tasks"]["done"], "it gets on")  # noqa: B023
            upgraded.kill()
            upgraded.package = lab.ROOT
            start(upgraded, "one" if upgraded is one else "two")
            upgraded.ok("wait", job)
            other.ok("wait", kept)
            assert answers(tmp_path / f"job-{name}") == answers(tmp_path / f"job-{name}-too") == ANSWERS
            linked(one, two)
        assert version(one) == version(two) == str(MINOR)
