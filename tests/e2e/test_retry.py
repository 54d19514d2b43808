"""Failed tasks again, jobs resumed and halted, and every attempt to be looked into: through the command line."""

import lab

from tests.covers import covers

FIRST_FAILS = """
import os, pathlib, sys
k, attempt = int(sys.argv[2]), int(os.environ["P2PQ_ATTEMPT"])
print(f"try {attempt} of {k}")
pathlib.Path("results/by").write_text(f"{os.environ['P2PQ_JOB']} {attempt}")
sys.exit(7 if k % 2 and attempt == 1 else 0)
"""
ODD_FAIL = """
import os, pathlib, sys
k = int(sys.argv[2])
pathlib.Path("results/by").write_text(os.environ["P2PQ_JOB"])
sys.exit(7 if k % 2 else 0)
"""
HALT = """
import os, pathlib, sys, time
k = int(sys.argv[2])
time.sleep(0 if k < 2 else float(sys.argv[3]))
sys.exit(3 if k < 2 else 0)
"""


def by(folder, count):
    return [(folder / "results" / str(task) / "by").read_text().split() for task in range(count)]


def newest(host):
    return host.json("jobs", "--limit", "1")[0]


def failed_job(host, folder):
    """Submit four tasks of which two fail the first time."""
    assert host.run("submit", "--retries", "0", "--sweep", "k=0:3", str(folder)).returncode == 1
    return newest(host)["job"]


@covers("retry", "logs --attempt")
def test_what_failed_is_run_again_even_after_a_restart(host, tmp_path):
    folder = lab.make_folder(tmp_path / "job", FIRST_FAILS)
    job = failed_job(host, folder)
    assert "the task failed by its own doing (exit 7" in host.ok("why", f"{job}.1")
    host.stop()
    host.start()
    done = host.run("retry", job)
    assert (done.returncode, done.stderr.splitlines()[-1].startswith("p2pq: job: 4 of 4 done")) == (0, True), done
    assert by(folder, 4) == [[job, "1"], [job, "2"], [job, "1"], [job, "2"]]
    assert (folder / "results" / "1.~1~" / "by").read_text() == f"{job} 1"
    assert host.ok("logs", f"{job}.3", "--attempt", "1") == "try 1 of 3\n"
    assert host.ok("logs", f"{job}.3") == host.ok("logs", f"{job}.3", "--attempt", "2") == "try 2 of 3\n"
    shown = host.json("show", f"{job}.3")
    assert [(each["attempt"], each["state"], each["exit"], each["counted"]) for each in shown["history"]] == [
        (1, "failed", 7, True),
        (2, "done", 0, False),
    ]
    assert "exit" not in host.ok("show", f"{job}.3")
    assert host.json("show", job)["state"] == "done"
    assert host.ok("wait", job) == ""
    host.ok("results", job, "--to", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "3" / "by").read_text() == f"{job} 2"
    assert "none failed" in host.fails(4, "retry", job)
    assert "no attempt 9" in host.fails(4, "logs", f"{job}.3", "--attempt", "9")
    host.fails(2, "logs", job, "--attempt", "1")


@covers("retry --detach")
def test_a_retry_that_was_answered_survives_the_end_of_the_node(host, tmp_path):
    folder = lab.make_folder(tmp_path / "job", FIRST_FAILS)
    job = failed_job(host, folder)
    assert host.ok("retry", "--detach", job).split() == [job]
    host.kill()
    host.start()
    assert host.run("wait", job).returncode == 0
    assert [attempt for _, attempt in by(folder, 4)][::2] == ["1", "1"]
    assert host.json("show", job)["tasks"]["done"] == 4


@covers("retry --cancelled", "retry --json", "retry --quiet")
def test_what_was_cancelled_is_run_again_only_if_told(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", HALT)
    job = shared.submit("--sweep", "k=2:4", str(folder), "--", "--k", "{k}", "600")
    shared.ok("cancel", job)
    assert "add --cancelled" in shared.fails(4, "retry", job)
    again = shared.json("retry", "--cancelled", f"{job}.1")
    assert (again["job"], again["state"], again["tasks"]["pending"] + again["tasks"]["running"]) == (job, "running", 1)
    assert "still returns results" in shared.fails(4, "submit", str(folder))
    shared.ok("cancel", job)
    fast = lab.make_folder(tmp_path / "fast", FIRST_FAILS)
    failed = failed_job(shared, fast)
    quiet = shared.run("retry", "--quiet", f"{failed}.1")
    assert (quiet.returncode, quiet.stdout) == (1, "")  # the other one has still failed
    assert "done" not in quiet.stderr
    assert shared.json("show", failed)["tasks"]["done"] == 3


@covers("retry", "results", "submit")
def test_results_of_an_older_job_go_where_those_lie_and_never_among_a_newer_jobs(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", FIRST_FAILS)
    old = failed_job(shared, folder)
    new = failed_job(shared, folder)
    aside = folder / "results.~1~"
    assert shared.json("show", old)["results"] == str(aside)
    assert shared.ok("retry", old, "--quiet") == ""
    assert by(folder, 4) == [[new, "1"]] * 4
    assert [(aside / str(task) / "by").read_text().split() for task in range(4)] == [
        [old, "1"],
        [old, "2"],
        [old, "1"],
        [old, "2"],
    ]
    (folder / "results").rename(folder / "mine")  # a rotation that p2pq knows nothing of
    newest_job = failed_job(shared, folder)
    said = shared.fails(4, "retry", new)
    assert said == (
        f"newer results, of job {newest_job[:8]}, lie in {folder}/results; submit the folder again, or with --results DIR"
    )
    assert f"`p2pq results {new[:8]} --to DIR`" in shared.fails(4, "results", new)
    assert by(folder, 4) == [[newest_job, "1"]] * 4
    shared.ok("results", new, "--to", str(tmp_path / "copy"))


@covers("retry")
def test_a_retry_says_that_the_results_folder_is_not_there_any_more(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", FIRST_FAILS)
    job = failed_job(shared, folder)
    folder.rename(tmp_path / "renamed")
    again = shared.run("retry", job)
    assert again.returncode == 0
    assert f"p2pq: {folder}/results is not there any more; it is made anew for what runs again" in again.stderr
    assert sorted(path.name for path in (folder / "results").iterdir()) == ["1", "3"]


@covers("submit --halt")
def test_a_job_halts_by_itself_at_once_or_softly(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", HALT)
    hard = shared.run(
        "submit", "--retries", "0", "--halt", "now,fail=2", "--sweep", "k=0:9", str(folder), "--", "--k", "{k}", "600"
    )
    assert hard.returncode == 1
    assert "halted after 2 failures: 2 failed, 8 cancelled of 10" in hard.stderr
    job = newest(shared)["job"]
    hint = f"p2pq: `p2pq retry {job[:8]}` runs what failed again, with --cancelled also what was cancelled"
    assert hard.stderr.splitlines()[-1] == hint
    assert shared.json("show", job)["halted"] == "halted after 2 failures"
    assert "halted after 2 failures" in shared.ok("why", job)
    assert "halted after 2 failures" in shared.ok("show", job)
    soft = shared.run("submit", "--halt", "soon,success=1", "--sweep", "k=2:9", str(folder), "--", "--k", "{k}", "0.5")
    assert soft.returncode == 0, soft.stderr
    counts = newest(shared)["tasks"]
    assert 1 <= counts["done"] < 8  # what ran, or was handed out ahead, beside the first one ended well too
    assert counts["done"] + counts["cancelled"] == 8
    assert "write it like never" in shared.fails(2, "submit", "--halt", "later", str(folder))


ONE_HIT = """
import os, pathlib, sys, time
k = int(sys.argv[2])
time.sleep(0 if k < 4 else float(sys.argv[4]))
sys.exit(0 if k == 3 else 1)
"""


@covers("submit --halt", "retry --cancelled")
def test_a_search_that_had_its_success_is_done_and_stays_so(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", ONE_HIT)
    found = shared.run(
        *("submit", "--retries", "0", "--halt", "now,success=1", "--sweep", "k=0:9", str(folder)),
        *("--", "--k", "{k}", "--s", "0.2"),
    )
    job, counts = newest(shared)["job"], newest(shared)["tasks"]
    said = f"1 of 10 done, {counts['failed']} failed, halted after 1 success"
    assert (found.returncode, said in found.stderr.splitlines()[-1]) == (0, True), found.stderr
    assert (newest(shared)["state"], counts["failed"] + counts["cancelled"]) == ("done", 9)
    assert counts["failed"] >= 2
    assert shared.run("wait", job).returncode == 0
    again = shared.run("retry", job, "--cancelled")
    assert again.returncode == 0, again.stderr
    shown = shared.json("show", job)
    assert (shown["state"], shown["tasks"]["done"], shown["tasks"]["failed"]) == ("done", 1, 9)
    assert "done, as enough of its tasks succeeded: 1 done, 9 failed" in shared.ok("why", job)
    none = shared.run(
        *("submit", "--retries", "0", "--halt", "now,success=2", "--sweep", "k=2:4", str(folder)),
        *("--", "--k", "{k}", "--s", "0"),
    )
    assert none.returncode == 1, none.stderr


@covers("submit --resume", "submit --keep-done")
def test_a_sweep_is_resumed_where_its_inputs_are_the_same(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", ODD_FAIL)

    def submit(*options, sweep="k=0:3"):
        done = shared.run("submit", *options, "--retries", "0", "--sweep", sweep, str(folder))
        return newest(shared)["job"], done

    first, done = submit()
    assert done.returncode == 1
    second, done = submit("--resume")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        f"p2pq: 2 of 4 tasks are kept from job {first[:8]}, 2 run",
    )
    assert by(folder, 4) == [[first], [second], [first], [second]]
    assert not (folder / "results.~1~").exists()
    kept = shared.json("tasks", second)[2]
    assert (kept["state"], kept["reason"], kept["attempts"]) == ("done", f"kept from job {first[:8]}", 0)
    (folder / "main.py").write_text(ODD_FAIL.replace("7 if k % 2 else 0", "0"))
    third, done = submit("--keep-done", sweep="k=0:4")
    assert done.returncode == 0
    assert by(folder, 5) == [[first], [third], [first], [third], [third]]
    nothing, done = submit("--resume", sweep="k=0:4")
    assert (done.returncode, "nothing is left to run" in done.stderr) == (0, True)
    assert shared.json("show", nothing)["state"] == "done"
    (folder / "main.py").write_text(ODD_FAIL.replace("7 if k % 2 else 0", "0 * 1"))
    last, done = submit("--resume", sweep="k=0:4")
    assert "the files or the arguments are not those" in done.stderr
    assert by(folder, 5) == [[last]] * 5
