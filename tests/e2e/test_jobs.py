"""Commands about jobs, each option by its effect."""

import json
import re
import signal
import time

import lab
import pytest

from tests.covers import covers

REPORT = """
import json, os, pathlib, sys, time
env = {key: value for key, value in os.environ.items() if key.startswith(("P2PQ_", "OMP_"))}
params = json.loads(pathlib.Path(os.environ["P2PQ_PARAMS"]).read_text())
files = sorted(path.name for path in pathlib.Path().iterdir())
found = {"args": sys.argv[1:], "env": env, "params": params, "files": files, "at": time.time(), "main": __file__}
pathlib.Path(os.environ["P2PQ_RESULTS"], "out.json").write_text(json.dumps(found))
"""
SLEEP = "import time; print('begun', flush=True); time.sleep(600)"


def report(folder):
    return json.loads((folder / "results/out.json").read_text())


def running(host, job):
    lab.until(lambda: host.json("show", job)["tasks"]["running"], f"{job} runs")


@covers("submit", "submit --name", "submit --main", "submit --exclude", "submit --cpus", "submit --quiet")
def test_what_travels_and_what_the_task_sees(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", "raise SystemExit(9)", keep__txt="x", big__dat="x")
    (folder / "other.py").write_text(REPORT)
    done = shared.run(
        "submit",
        "--quiet",
        "--main",
        "other.py",
        "--exclude",
        "*.dat",
        "--cpus",
        "2",
        "--name",
        "nice",
        str(folder),
        "a",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = report(folder)
    assert found["args"] == ["a"]
    assert found["main"].endswith("other.py")
    assert {"keep.txt", "main.py", "other.py", "results"} <= set(found["files"])
    assert "big.dat" not in found["files"]
    env = found["env"]
    assert env["OMP_NUM_THREADS"] == env["P2PQ_CPUS"] == "2"
    assert (env["P2PQ_TASK"], env["P2PQ_TASKS"], env["P2PQ_ATTEMPT"], env["P2PQ_NODE"]) == ("0", "1", "1", "home")
    job = shared.json("jobs")[0]
    assert (job["name"], job["job"]) == ("nice", env["P2PQ_JOB"])


@covers("submit --array", "submit --sweep", "submit --config", "submit --detach", "submit --results", "wait")
def test_parameters_reach_the_task(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", REPORT)
    config = tmp_path / "fast.toml"
    config.write_text("speed = 2\n")
    out = tmp_path / "elsewhere"
    job = shared.submit(
        "--array",
        "3,5",
        "--sweep",
        "x=0:1:0.5",
        "--config",
        str(config),
        "--results",
        str(out),
        str(folder),
        "--x={x}",
        "{task}",
    )
    assert shared.ok("wait", job) == ""
    found = [json.loads((out / str(task) / "out.json").read_text()) for task in range(6)]
    assert [item["args"] for item in found[:2]] == [
        ["--x=0", "0", "--config", "fast.toml"],
        ["--x=0.5", "1", "--config", "fast.toml"],
    ]
    assert found[5]["params"] == {"array": "5", "x": "1", "config": "fast.toml"}
    assert "fast.toml" in found[0]["files"]
    assert not (folder / "results").exists()


@covers("submit --retries", "tasks", "tasks --json", "show", "show --json", "why", "why --json")
def test_a_failing_task_is_tried_again_and_then_said(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", "raise SystemExit(7)")
    done = shared.run("submit", "--retries", "2", str(folder))
    assert done.returncode == 1
    assert "exit 7" in done.stderr
    job = shared.json("jobs")[0]["job"]
    [task] = shared.json("tasks", job)
    assert (task["state"], task["exit"], task["attempts"], task["reason"]) == ("failed", 7, 3, "exit")
    assert set(task) >= {"task", "params", "node", "via", "attempt", "signal", "seconds", "max_rss"}
    assert "failed" in shared.ok("tasks", job)
    shown = shared.json("show", job[:6])
    assert (shown["state"], shown["attempts"], shown["tasks"]["failed"]) == ("failed", 3, 1)
    assert "failed" in shared.ok("show", job)
    assert "1 failed" in shared.ok("why", job)
    why = shared.json("why", f"{job}.0")
    assert "failed" in why["why"]
    assert "logs" in why["suggestion"]


@covers("submit --time", "submit --memory", "submit --sandbox", "submit --where")
def test_limits_end_a_task_and_the_rest_is_as_asked(shared, tmp_path):
    hog = lab.make_folder(tmp_path / "hog", "data = []\nwhile True: data.append(bytearray(16 << 20))")
    idle = lab.make_folder(tmp_path / "idle", SLEEP)
    plain = lab.make_folder(tmp_path / "plain", REPORT)
    jobs = [
        shared.submit("--retries", "0", "--memory", "128M", str(hog)),
        shared.submit("--retries", "0", "--time", "1", str(idle)),
    ]
    assert shared.run("wait", *jobs).returncode == 1
    reasons = [shared.json("tasks", job)[0]["reason"] for job in jobs]
    assert reasons == ["memory-limit", "time-limit"]
    assert "only" in shared.fails(2, "submit", "--sandbox", "none", str(plain))
    shared.ok("submit", "--sandbox", "none", "--where", "local", str(plain))
    assert report(plain)["env"]["P2PQ_RESULTS"].startswith(str(shared.home))
    shared.ok("submit", "--sandbox", "strict", "--where", "home", str(plain))
    assert report(plain)["env"]["P2PQ_RESULTS"].startswith("/job")
    assert "peers" in shared.fails(4, "submit", "--where", "nobody", str(plain))


@covers("submit --need", "submit --gpus", "cancel", "cancel --json")
def test_needs_are_met_or_the_job_says_why_it_waits(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", REPORT)
    shared.ok("submit", "--need", "room=12", "--need", "os=linux", str(folder))
    gpu = shared.submit("--gpus", "1", "--results", str(tmp_path / "gpu"), str(folder))
    assert "gpu" in shared.ok("why", gpu).lower()
    waiting = shared.popen("submit", "--need", "room=99", str(folder))
    try:
        line = lab.read_line(waiting.stderr, 30)
        while "still waiting" not in line:
            line = lab.read_line(waiting.stderr, 30)
        assert "room=99" in line
    finally:
        said = lab.interrupt(waiting)
    assert waiting.returncode == 130
    job = shared.json("jobs")[0]
    assert f"p2pq wait {job['job']}" in said
    assert job["state"] == "queued"
    assert shared.json("cancel", job["job"])["tasks"]["cancelled"] == 1
    assert "1 of 1 cancelled" in shared.ok("cancel", gpu)
    lab.until(lambda: shared.json("show", gpu)["state"] == "cancelled", "cancelled")


@covers("submit --priority")
def test_priority_decides_among_own_jobs(shared, tmp_path):
    block = lab.make_folder(tmp_path / "block", "import time; time.sleep(4)")
    low, high = (lab.make_folder(tmp_path / name, REPORT) for name in ("low", "high"))
    jobs = [shared.submit("--cpus", "2", str(block))]
    running(shared, jobs[0])
    jobs += [shared.submit("--cpus", "2", str(low)), shared.submit("--cpus", "2", "--priority", "5", str(high))]
    shared.ok("wait", *jobs)
    assert report(high)["at"] < report(low)["at"]


@covers("cancel")
@pytest.mark.parametrize("how", [(), ("--cold",)])
def test_cancel_reaches_the_process_of_one_task(shared, tmp_path, how):
    # A fork of a warm interpreter has that one's command line; what the script starts has its own.
    main = "import subprocess, sys; subprocess.run(['sh', '-c', 'sleep 600; : ' + sys.argv[1]])"
    folder = lab.make_folder(tmp_path / "job", main)
    job = shared.submit(*how, "--array", "7-8", str(folder), "marker-of-cancel-{task}")
    lab.until(lambda: shared.json("show", job)["tasks"]["running"] == 2, "both run")
    lab.until(lambda: len(lab.processes("marker-of-cancel-")) >= 2, "their processes are there")
    shared.ok("cancel", f"{job}.7")
    lab.until(lambda: not lab.processes("marker-of-cancel-7"), "the process is gone")
    assert lab.processes("marker-of-cancel-8")
    shared.ok("cancel", job)
    lab.until(lambda: not lab.processes("marker-of-cancel-"), "both are gone")
    lab.until(lambda: shared.json("show", job)["state"] == "cancelled", "cancelled")
    assert [task["state"] for task in shared.json("tasks", job)] == ["cancelled", "cancelled"]
    assert shared.run("wait", job).returncode == 1


@covers("logs", "logs --follow", "logs --stderr", "logs --json")
def test_logs_are_live(shared, tmp_path):
    main = "import sys, time\nprint('één', flush=True)\nprint('bad', file=sys.stderr)\ntime.sleep(4)\nprint('two')"
    job = shared.submit(str(lab.make_folder(tmp_path / "job", main)))
    running(shared, job)
    follow = shared.popen("logs", "--follow", job)
    follow_json = shared.popen("logs", "--follow", "--json", f"{job}.0")
    assert lab.read_line(follow.stdout, 10) == "één\n"
    assert shared.json("show", job)["state"] == "running"
    out, said = follow.communicate(timeout=20)
    assert (follow.returncode, out, said) == (0, "two\n", "")
    pieces = [json.loads(line) for line in follow_json.communicate(timeout=20)[0].splitlines()]
    assert "".join(piece["text"] for piece in pieces) == "één\ntwo\n"
    assert shared.json("logs", job) == [{"task": 0, "stream": "stdout", "text": "één\ntwo\n"}]
    assert shared.ok("logs", "--stderr", f"{job[:8]}.0") == "bad\n"
    assert "no task 5" in shared.fails(4, "logs", f"{job}.5")
    assert "number" in shared.fails(2, "logs", f"{job}.x")


@covers("logs --raw")
def test_output_cannot_steer_a_terminal_unless_asked_for(shared, tmp_path):
    job = shared.submit(str(lab.make_folder(tmp_path / "job", "print('\\x1b[31mred\\tend' + 'x' * 300)")))
    shared.ok("wait", job)
    tame, wild = (lab.on_terminal(shared, "logs", *raw, job) for raw in ([], ["--raw"]))
    assert "\x1b" not in tame
    assert tame.replace("\r", "") == "\ufffd[31mred\tend" + "x" * 300 + "\n"
    assert "\x1b[31mred" in wild


@covers("jobs", "jobs --json", "jobs --limit")
def test_jobs_lists_the_newest_first(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", "pass")
    names = ["older", "newer"]
    shared.ok(
        "wait", *[shared.submit("--name", name, "--results", str(tmp_path / name), str(folder)) for name in names]
    )
    found = shared.json("jobs", "--limit", "2")
    assert [job["name"] for job in found] == ["newer", "older"]
    assert set(found[0]) >= {"job", "name", "owner", "state", "tasks", "attempts", "submitted", "finished", "results"}
    assert found[0]["finished"].endswith("Z")
    lines = shared.ok("jobs", "--limit", "1").splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:3] == [found[0]["job"][:8], "newer", "done"]


@covers("wait", "wait --timeout", "wait --quiet", "wait --json")
def test_wait_gives_up_or_reports(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", SLEEP)
    job = shared.submit(str(folder))
    before = time.monotonic()
    assert "goes on" in shared.fails(5, "wait", "--timeout", "1", job)
    assert time.monotonic() - before < 10
    shared.ok("cancel", job)
    quick = shared.submit("--results", str(tmp_path / "quick"), str(lab.make_folder(tmp_path / "quickjob", "pass")))
    loud, quiet = shared.run("wait", quick), shared.run("wait", "--quiet", quick)
    assert (loud.returncode, quiet.returncode) == (0, 0)
    assert "1 of 1 done" in loud.stderr
    assert quiet.stderr == ""
    [view] = shared.json("wait", quick)
    assert view["state"] == "done"
    assert "p2pq jobs" in shared.fails(4, "wait", "zzzzzzzz")


@covers("results", "results --to", "results --json")
def test_results_are_written_out_again(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", REPORT)
    job = shared.submit("--array", "0-1", str(folder))
    shared.ok("wait", job)
    (folder / "results/1/out.json").unlink()
    assert f"2 tasks in {folder}/results" in shared.ok("results", job)
    assert (folder / "results/1/out.json").exists()
    target = tmp_path / "copy"
    assert shared.json("results", job, "--to", str(target)) == {"folder": str(target), "tasks": 2}
    assert sorted(path.parent.name for path in target.glob("*/out.json")) == ["0", "1"]
    assert "--to" in shared.fails(4, "results", "--to", str(target), job)
    assert "--to" in shared.fails(4, "results", "--to", f"{folder}/main.py/x", job)


def test_two_jobs_never_return_into_one_folder(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", SLEEP)
    job = shared.submit(str(folder))
    said = shared.fails(4, "submit", str(folder))
    assert job[:8] in said
    assert "--results" in said
    assert "no results yet" in shared.fails(4, "results", job)
    shared.ok("cancel", job)


@pytest.mark.parametrize("command", ["submit", "wait"])
def test_interrupting_leaves_the_job_running(shared, tmp_path, command):
    folder = lab.make_folder(tmp_path / "job", SLEEP)
    job = "" if command == "submit" else shared.submit(str(folder))
    waiting = shared.popen(command, str(folder) if command == "submit" else job)
    lab.until(lambda: shared.json("jobs", "--limit", "1")[0]["name"] == "job", "it is submitted")
    job = job or shared.json("jobs")[0]["job"]
    running(shared, job)
    said = lab.interrupt(waiting)
    assert waiting.returncode == 130
    assert f"p2pq wait {job}" in said
    assert f"p2pq cancel {job}" in said
    assert shared.json("show", job)["state"] == "running"
    shared.ok("cancel", job)


def test_a_terminal_gets_a_bar_and_the_time_left(shared, tmp_path):
    main = "import os, time\nopen(os.environ['P2PQ_RESULTS'] + '/.progress', 'w').write('0.5')\ntime.sleep(2.5)"
    folder = lab.make_folder(tmp_path / "job", main)
    shown = lab.on_terminal(shared, "submit", "--array", "0-1", str(folder))
    assert "0/2, 2 running" in shown
    assert "left" in shown
    assert "2 of 2 done" in shown
    assert not list(folder.glob("results/*/.progress"))


@covers("why")
def test_why_knows_soon_that_a_task_runs_and_when_its_machine_falls_silent(tmp_path):
    with lab.hosts(tmp_path, ["alice", "bob"]) as [alice, bob]:
        for host in (alice, bob):
            (host.home / "config.toml").write_text("[schedule]\nlease_s = 30.0\nheartbeat_s = 8.0\n")
            host.start("--name", host.home.name)
        bob.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
        job = alice.submit("--where", "bob", str(lab.make_folder(tmp_path / "job", SLEEP)))
        lab.until(lambda: alice.run("logs", f"{job}.0").stdout == "begun\n", "it runs")
        lab.until(lambda: "running on bob for" in alice.ok("why", f"{job}.0"), "alice knows that it runs", 6)
        assert alice.ok("why", job) == "the one unfinished task is running; nothing waits.\n"
        bob.process.send_signal(signal.SIGSTOP)
        try:
            said = lab.until(lambda: silence(alice.ok("why", f"{job}.0")), "alice says that bob is silent", 25)
            heard, ends = (int(number) for number in said.groups())
            assert (heard >= 12, heard + ends) == (True, pytest.approx(30, abs=1))
        finally:
            bob.process.send_signal(signal.SIGCONT)
        alice.ok("cancel", job)


def silence(said):
    return re.search(r"running on bob .* nothing was heard from there for (\d+) s; .* lease ends in (\d+) s", said)
