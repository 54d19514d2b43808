"""A folder goes out, its results come back."""

import json

import lab

from tests.covers import covers

HELLO = """
import json, os, pathlib, sys
results = pathlib.Path(os.environ["P2PQ_RESULTS"])
(results / "out.json").write_text(json.dumps({"args": sys.argv[1:], "task": os.environ["P2PQ_TASK"]}))
print("hello from", os.environ["P2PQ_TASK"])
print("trouble", file=sys.stderr)
"""


def test_a_folder_goes_out_and_its_results_come_back(host, tmp_path):
    folder = lab.make_folder(tmp_path / "job", HELLO)
    host.ok("submit", str(folder), "--n", "3")
    assert json.loads((folder / "results/out.json").read_text()) == {"args": ["--n", "3"], "task": "0"}
    [job] = host.json("jobs")
    assert job["state"] == "done"
    assert job["tasks"] == {"total": 1, "pending": 0, "running": 0, "done": 1, "failed": 0, "cancelled": 0}
    assert host.ok("logs", job["job"]) == "hello from 0\n"
    assert host.ok("logs", job["job"][:6], "--stderr") == "trouble\n"


def test_results_are_rotated_never_overwritten(host, tmp_path):
    folder = lab.make_folder(tmp_path / "job", HELLO)
    for _ in range(3):
        host.ok("submit", str(folder))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["main.py", "results", "results.~1~", "results.~2~"]


def test_a_sweep_gives_a_folder_per_task(host, tmp_path):
    folder = lab.make_folder(tmp_path / "job", HELLO)
    host.ok("submit", "--sweep", "k=a,b", "--array", "5-6", str(folder), "{k}")
    found = {path.parent.name: json.loads(path.read_text())["args"] for path in folder.glob("results/*/out.json")}
    assert found == {"0": ["a"], "1": ["b"], "2": ["a"], "3": ["b"]}
    [job] = host.json("jobs")
    tasks = host.json("tasks", job["job"])
    assert [task["params"] for task in tasks] == [
        {"array": number, "k": k} for number in ("5", "6") for k in ("a", "b")
    ]
    assert all(task["exit"] == 0 and task["reason"] == "ok" and task["node"] for task in tasks)


def test_a_failure_is_told_with_its_exit_code(host, tmp_path):
    folder = lab.make_folder(tmp_path / "job", "import sys; print('oh', file=sys.stderr); sys.exit(3)")
    done = host.run("submit", "--retries", "0", str(folder))
    assert done.returncode == 1
    assert "task 0 failed" in done.stderr
    assert "exit 3" in done.stderr
    [job] = host.json("jobs")
    assert host.ok("logs", job["job"], "--stderr") == "oh\n"


def test_two_machines_share_a_sweep(pair, tmp_path):
    alice, bob = pair
    folder = lab.make_folder(tmp_path / "job", "import time; time.sleep(0.3)\n" + HELLO)
    alice.ok("submit", "--array", "0-19", str(folder))
    assert len(list(folder.glob("results/*/out.json"))) == 20
    [job] = alice.json("jobs")
    assert {task["node"] for task in alice.json("tasks", job["job"])} == {"alice", "bob"}
    assert bob.json("jobs") == []


WARM = """
import decimal
import json
import os
import sys
with open("/proc/self/cmdline", "rb") as file:  # of what it was forked off, where it was
    forked = file.read().count(0) < len(sys.orig_argv)
with open(os.environ["P2PQ_RESULTS"] + "/forked", "w") as file:
    json.dump(forked, file)
"""


@covers("submit --cold")
def test_tasks_of_a_script_start_warm_unless_it_is_refused(host, tmp_path):
    folder = lab.make_folder(tmp_path / "job", WARM)

    def forked(*options):
        host.ok("submit", *options, "--array", "1-3", str(folder), "{task}")
        return {json.loads(path.read_text()) for path in folder.glob("results/*/forked")}

    assert forked() == {True}
    assert forked("--cold") == {False}
    (folder / "pyproject.toml").write_text("[tool.p2pq]\nwarm = false\n")
    assert forked() == {False}
    (folder / "pyproject.toml").write_text("[tool.p2pq]\nwarm = maybe\n")
    done = host.run("submit", str(folder))
    assert done.returncode == 2
    assert "[tool.p2pq] in pyproject.toml is not usable" in done.stderr
