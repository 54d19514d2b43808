"""Commands through the command line: run, map and batch on a real node, as people who know GNU parallel use them."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess

import lab
import pytest

from tests.covers import covers

pytestmark = pytest.mark.slow

KINDS = ("run", "map", "batch")


@pytest.fixture
def spell(tmp_path):
    """Say a shell command as the arguments of ``run``, ``map`` or ``batch``."""

    def words(kind, line, *options):
        if kind == "run":
            return ["run", *options, "--", "sh", "-c", line]
        if kind == "map":
            return ["map", *options, f"sh -c {shlex.quote(line)}", ":::", "x"]
        lines = tmp_path / "lines"
        lines.write_text(line.replace("\n", ";") + "\n")
        return ["batch", *options, str(lines)]

    return words


def latest(host):
    return host.json("jobs")[0]


def test_one_command_is_as_if_it_had_been_typed(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE", "yes")
    done = shared.run("run", "--", "sh", "-c", "pwd; echo $MINE; echo oops >&2; touch made; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{tmp_path}\nyes\n", "oops\n")
    assert (tmp_path / "made").exists()
    assert shared.run("run", "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    missing = shared.run("run", "--", "no-such-command")
    assert (missing.returncode, missing.stderr) == (127, "p2pq: no-such-command: No such file or directory\n")


def test_a_command_reads_our_standard_input_if_asked_to(shared):
    long = "".join(f"{number}\n" for number in range(400_000))
    done = shared.run("run", "-i", "sort", "-rn", input=long)
    assert done.stdout.split("\n", 1)[0] == "399999"
    assert done.stdout.count("\n") == 400_000
    assert shared.run("run", "cat", input=long).stdout == ""


def test_output_comes_as_it_is_printed(shared):
    with shared.popen("run", "--", "sh", "-c", "echo now; read x < /dev/null; sleep 600") as process:
        assert lab.read_line(process.stdout, 30) == "now\n"
        assert "p2pq: " in lab.interrupt(process)
        assert process.returncode == 130
    assert latest(shared)["state"] == "cancelled", "whoever is interrupted in the foreground does not go on"
    lab.until(lambda: not lab.processes("sleep 600"), "what it ran is ended")


def test_many_commands_print_whole_and_in_order_if_wanted(shared, tmp_path):
    script = "echo begin {}; sleep 0.$((5 - {})); echo end {}"
    done = shared.run("map", "-k", script, ":::", "1", "2", "3", "4")
    assert done.stdout.splitlines() == [f"{what} {number}" for number in (1, 2, 3, 4) for what in ("begin", "end")]
    plain = shared.run("map", script, ":::", "1", "2", "3", "4").stdout.splitlines()
    assert sorted(plain) == sorted(done.stdout.splitlines())
    assert all(plain[at].split()[1] == plain[at + 1].split()[1] for at in range(0, 8, 2)), "never mixed"
    several = shared.run("map", "-k", "echo {1}{2}", ":::", "a", "b", ":::", "1", "2")
    assert several.stdout.split() == ["a1", "a2", "b1", "b2"]


def test_some_may_fail_and_a_log_says_which(shared, tmp_path):
    lines = tmp_path / "lines"
    lines.write_text("true\nexit 3\nkill -9 $$\n/bin/echo 'a  b'\n")
    log = tmp_path / "log"
    done = shared.run("batch", "--joblog", str(log), "--retries", "0", str(lines))
    assert (done.returncode, done.stdout) == (1, "a  b\n")
    rows = {row[0]: row for row in (line.split("\t") for line in log.read_text().splitlines()[1:])}
    assert [(rows[str(number)][6], rows[str(number)][7]) for number in (1, 2, 3, 4)] == [
        ("0", "0"),
        ("3", "0"),
        ("0", "9"),
        ("0", "0"),
    ]
    assert rows["4"][5] == "5"
    assert rows["2"][8] == "exit 3"


def test_much_output_comes_whole(shared):
    done = shared.run("map", "-k", "seq {}", ":::", "200000", "3")
    assert done.stdout == "".join(f"{number}\n" for count in (200_000, 3) for number in range(1, count + 1))


def test_a_reader_that_has_had_enough_ends_the_job(shared):
    with shared.popen("map", "echo {}; sleep 0.1", ":::", *map(str, range(1000))) as process:
        assert lab.read_line(process.stdout, 30)
        process.stdout.close()
        assert process.wait(timeout=60) == 141
    assert latest(shared)["state"] == "cancelled"


def test_a_node_that_dies_loses_nothing_of_them(home, tmp_path):
    home.start("--slots", "2")
    log = tmp_path / "ran"
    job = home.ok("map", "--detach", f"sleep 0.2; echo {{}} >> {log}", ":::", *map(str, range(20))).strip()
    lab.until(lambda: log.exists() and len(log.read_text().split()) >= 4, "some have run")
    home.kill()
    home.start("--slots", "2")
    assert home.run("wait", job).returncode == 0
    ran = log.read_text().split()
    assert set(ran) == {str(number) for number in range(20)}
    assert len(ran) <= 22, "only what ran when it died ran again"
    tasks = home.json("tasks", job)
    assert {task["state"] for task in tasks} == {"done"}
    assert [task["params"] for task in tasks[:2]] == [{"1": "0"}, {"1": "1"}]


def test_what_they_printed_can_be_read_later_and_failed_ones_run_again(shared, tmp_path):
    flag = tmp_path / "flag"
    job = shared.ok("map", "--detach", "--retries", "0", f"echo {{}}; test -e {flag}", ":::", "a").strip()
    assert shared.run("wait", job).returncode == 1
    assert shared.ok("logs", job) == "a\n"
    flag.touch()
    shared.ok("retry", job)
    assert shared.run("wait", job).returncode == 0
    assert shared.json("show", job)["results"] == ""


@pytest.mark.parametrize("kind", KINDS)
@covers("run --cpus", "map --cpus", "batch --cpus")
def test_a_command_has_as_many_cpus_as_it_asked_for(shared, spell, kind):
    assert shared.ok(*spell(kind, "echo $P2PQ_CPUS", "--cpus", "2")) == "2\n"


@pytest.mark.parametrize("kind", KINDS)
@covers("run --name", "map --name", "batch --name")
def test_a_job_of_commands_has_the_name_that_it_was_given(shared, spell, kind):
    shared.ok(*spell(kind, "true", "--name", f"my {kind}"))
    assert latest(shared)["name"] == f"my {kind}"


@pytest.mark.parametrize("kind", KINDS)
@covers("run --retries", "map --retries", "batch --retries")
def test_what_fails_is_tried_again_as_often_as_wanted(shared, spell, kind, tmp_path):
    line = f"echo $P2PQ_ATTEMPT >> {tmp_path}/tries; exit 1"
    assert shared.run(*spell(kind, line, "--retries", "1")).returncode == 1
    assert (tmp_path / "tries").read_text().split() == ["1", "2"]


@pytest.mark.parametrize("kind", KINDS)
@covers("run --time", "map --time", "batch --time")
def test_a_command_that_runs_too_long_is_ended(shared, spell, kind):
    assert shared.run(*spell(kind, "sleep 600", "--time", "1s", "--retries", "0")).returncode != 0
    [task] = shared.json("tasks", latest(shared)["job"])
    assert (task["state"], task["reason"]) == ("failed", "time-limit")


@pytest.mark.parametrize("kind", KINDS)
@covers("run --memory", "map --memory", "batch --memory")
def test_a_command_that_takes_too_much_memory_is_ended(shared, spell, kind):
    line = "python3 -c 'import time; x = bytearray(256 << 20); time.sleep(60)'"
    assert shared.run(*spell(kind, line, "--memory", "64M", "--retries", "0")).returncode != 0
    [task] = shared.json("tasks", latest(shared)["job"])
    assert (task["state"], task["reason"]) == ("failed", "memory-limit")


@pytest.mark.parametrize("kind", KINDS)
@covers("run --gpus", "map --gpus", "batch --gpus")
def test_a_command_that_asks_for_what_is_not_here_waits_and_says_why(shared, spell, kind):
    before = len(shared.json("jobs"))
    with shared.popen(*spell(kind, "true", "--gpus", "1")) as process:
        lab.until(lambda: len(shared.json("jobs")) > before, "the job is there")
        job = latest(shared)["job"]
        assert "gpu" in shared.ok("why", job)
        lab.interrupt(process)
        assert process.returncode == 130
    assert shared.json("show", job)["state"] == "cancelled"


@pytest.mark.parametrize("kind", ["map", "batch"])
@covers("map --halt", "batch --halt")
def test_the_rest_does_not_run_once_enough_have_failed(shared, tmp_path, kind):
    lines = tmp_path / "lines"
    lines.write_text("".join(f"sleep 0.05; echo {number}; exit 1\n" for number in range(200)))
    words = ["map", "--halt", "now,fail=1", "--retries", "0", "-a", str(lines)]
    words = words if kind == "map" else ["batch", "--halt", "now,fail=1", "--retries", "0", str(lines)]
    done = shared.run(*words)
    assert done.returncode == 1
    counts = latest(shared)["tasks"]
    assert 1 <= counts["failed"] <= 4
    assert counts["cancelled"] >= 190


@pytest.mark.parametrize("kind", KINDS)
@covers("run --priority", "map --priority", "batch --priority")
def test_what_has_priority_runs_first(home, spell, kind, tmp_path):
    home.start("--slots", "2")
    gate = tmp_path / "gate"
    held = f"while [ ! -e {gate} ]; do sleep 0.02; done # {{}}"
    home.ok("map", "--detach", "--cpus", "2", held, ":::", "x")
    lab.until(lambda: latest(home)["tasks"]["running"], "all slots are taken")
    home.ok("map", "--detach", "--cpus", "2", f"echo low >> {tmp_path}/order # {{}}", ":::", "x")
    before = len(home.json("jobs"))
    with home.popen(*spell(kind, f"echo high >> {tmp_path}/order", "--priority", "5", "--cpus", "2")) as process:
        lab.until(lambda: len(home.json("jobs")) > before, "both wait")
        gate.touch()
        assert process.wait(timeout=60) == 0
    lab.until(lambda: len((tmp_path / "order").read_text().split()) == 2, "both have run")
    assert (tmp_path / "order").read_text().split() == ["high", "low"]


def test_json_of_a_job_of_commands_is_as_of_any_other(shared):
    job = shared.ok("map", "--detach", "echo", ":::", "a").strip()
    shared.ok("wait", job)
    [view] = [each for each in json.loads(shared.ok("jobs", "--json")) if each["job"] == job]
    assert (view["name"], view["state"], view["results"]) == ("echo", "done", "")


def test_whoever_closes_our_streams_wants_nothing_of_them(shared):
    for closed, wanted in ((">&-", (0, "", "err\n")), ("2>&-", (0, "out\n", "")), ("<&-", (0, "out\n", "err\n"))):
        line = shlex.join(shared.argv("run", "--", "sh", "-c", "echo out; echo err >&2"))
        done = subprocess.run(
            ["sh", "-c", f"exec {line} {closed}"], env=shared.environment(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == wanted


def test_a_command_that_is_cancelled_may_clean_up(shared, tmp_path):
    script = f"trap 'echo cleaned > {tmp_path}/trap; exit' TERM; echo begun; while :; do sleep 0.1; done"
    with shared.popen("run", "--", "sh", "-c", script) as process:
        assert lab.read_line(process.stdout, 30) == "begun\n"
        lab.interrupt(process)
    lab.until((tmp_path / "trap").exists, "its trap has run")


def test_a_task_does_not_wait_for_a_slot_that_it_holds(shared):
    nested = shlex.join(shared.argv("run", "--", "true"))
    done = shared.run("run", "--", "sh", "-c", nested)
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "run the command itself" in done.stderr


def test_files_are_made_with_the_callers_umask(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o077)
    try:
        shared.ok("map", "touch", ":::", "mine")
    finally:
        os.umask(before)
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600


def test_a_job_that_was_interrupted_goes_on_where_it_was(shared, tmp_path):
    log, flag = tmp_path / "log", tmp_path / "flag"
    script = f"echo {{}}; [ {{}} -lt 3 ] || [ -e {flag} ]"
    words = ("--joblog", str(log), "--retries", "0", "-k", script, ":::", "1", "2", "3", "4")
    assert shared.run("map", *words).returncode == 1
    flag.touch()
    assert shared.run("map", "--resume", *words).stdout == ""
    again = shared.run("map", "--resume-failed", *words, "5")
    assert (again.returncode, again.stdout.split()) == (0, ["3", "4", "5"])
    job = latest(shared)
    assert (job["state"], job["tasks"]["done"], job["kept"]) == ("done", 5, 2)
    rows = [line.split("\t") for line in log.read_text().splitlines()[1:]]
    assert sorted(int(row[0]) for row in rows) == [1, 2, 3, 3, 4, 4, 5]
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if line[0] not in "345"))
    with log.open("a") as file:
        file.write("3\t:\t1.0\t0.1\t0\t0\t7\t0\techo third\n")
    assert shared.run("map", "--retry-failed", "--joblog", str(log)).stdout == "third\n"


def test_output_in_files_is_whole(shared, tmp_path):
    out = tmp_path / "out"
    shared.ok("map", "--results", str(out), "seq {}; echo e{} >&2", ":::", "3", "100000")
    assert (out / "1/100000/stdout").read_text() == "".join(f"{number}\n" for number in range(1, 100_001))
    assert (out / "1/3/stderr").read_text() == "e3\n"


def test_no_more_at_a_time_than_wanted(shared, tmp_path):
    line = f"mkdir {tmp_path}/one && sleep 0.05 && rmdir {tmp_path}/one || exit 1 # {{}}"
    assert shared.run("map", "-j1", "--retries", "0", line, ":::", *"123456").returncode == 0


def test_a_large_input_is_sorted_in_blocks_and_comes_back_in_order(shared, tmp_path):
    lines = [f"{number:06}\n" for number in range(60_000)]
    (tmp_path / "input").write_text("".join(lines))
    done = shared.run("map", "-k", "--pipe", "--block", "100k", "-a", str(tmp_path / "input"), "sort -r")
    blocks = [lines[first : first + 14285] for first in range(0, 60_000, 14_285)]
    assert done.stdout == "".join(line for block in blocks for line in reversed(block))
    assert latest(shared)["tasks"]["total"] == len(blocks)


def test_commands_elsewhere_have_their_files_and_leave_others(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    (tmp_path / "private").write_text("")
    script = "cat {} && ls && mkdir -p out && tr a-z A-Z < {} > out/{.}"
    options = ("--where", "any", "--file", "{}", "--return", "out/{.}")
    done = shared.run("map", "-k", *options, script, ":::", "a.txt", "b.txt")
    assert (done.returncode, done.stdout.split()) == (
        0,
        [*["a", "a.txt", "b.txt", "results"], *["b", "a.txt", "b.txt", "results"]],
    )
    assert [(tmp_path / "out" / name).read_text() for name in "ab"] == ["A\n", "B\n"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == [
        "a.txt",
        "b.txt",
        "out",
        "private",
    ]
    alone = shared.run("run", "--where", "any", "--", "sh", "-c", "ls; exit 9")
    assert (alone.returncode, alone.stdout) == (9, "results\n")
    assert latest(shared)["results"] == ""


def test_another_machine_runs_them_with_their_files(pair, tmp_path, monkeypatch):
    alice, bob = pair
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("3\n1\n2\n")
    name = bob.json("status")["name"]
    options = ("--where", name, "--file", "in.txt", "--return", "out/{}")
    script = "mkdir out; sort -n in.txt > out/{}; echo $P2PQ_NODE; [ {} != b ]"
    done = alice.run("map", "-k", "--retries", "0", *options, script, ":::", "a", "b")
    assert (done.returncode, done.stdout) == (1, f"{name}\n{name}\n")
    assert [(tmp_path / "out" / name).read_text() for name in "ab"] == ["1\n2\n3\n"] * 2
    live = alice.run("run", "--where", name, "--file", "in.txt", "--", "sh", "-c", "cat in.txt; exit 4")
    assert (live.returncode, live.stdout) == (4, "3\n1\n2\n")


def test_many_short_ones_elsewhere_bring_each_what_is_its_own(pair):
    alice, bob = pair
    name = bob.json("status")["name"]
    script = "case {} in *7) echo {}; exit 3 ;; *5) echo {} >&2 ;; *3) echo {} > results/{} ;; esac"
    numbers = list(map(str, range(100)))
    done = alice.run("map", "-k", "--retries", "0", "--where", name, script, ":::", *numbers)
    assert done.returncode == 1
    assert done.stdout.split() == [each for each in numbers if each.endswith("7")]
    assert done.stderr.split()[:10] == [each for each in numbers if each.endswith("5")]
    tasks = alice.json("tasks", latest(alice)["job"])
    assert [(task["exit"], task["node"]) for task in tasks] == [(3 * (each % 10 == 7), name) for each in range(100)]
    lab.until(lambda: bob.json("status")["kept_results"] == 0, "bob is told that all have come")


def test_lines_are_read_by_the_users_own_shell(shared, monkeypatch):
    bash = shutil.which("bash")
    monkeypatch.setitem(shared.settings, "SHELL", bash)
    monkeypatch.setitem(shared.settings, "BASH_FUNC_double%%", "() { echo $(($1 * 2)); }")
    assert shared.ok("map", "-k", "double", ":::", "1", "2") == "2\n4\n"
    assert shared.ok("map", "cat <(echo {}); [[ {} == a* ]] && echo yes", ":::", "ab") == "ab\nyes\n"


@covers("map --plus")
def test_more_replacement_strings(shared):
    line = ("map", "-k", "--plus", "--tag", "echo {1%.x} {2^a} {##}", ":::", "a.x", "b", ":::", "a")
    assert shared.ok(*line) == "a.x a\ta A 2\nb a\tb A 2\n"
    assert shared.ok("map", "-k", "--plus", "echo", "{choose_k}", *(":::", "A", "B", "C") * 2) == "A B\nA C\nB C\n"
    assert shared.run("map", "--plus", "echo", "{%(}", ":::", "x").returncode == 2


def hooked(tmp_path, kind, *hooks):
    """Return the arguments of a map or a batch of four tasks that fail, with hooks."""
    line = 'echo $X$(cat "$P2PQ_BEGUN"/file)'
    (tmp_path / "lines").write_text("".join(f"{line}{number}; false\n" for number in "1234"))
    words = {"map": (f"{line}; false # {{}}", ":::", *"1234"), "batch": (str(tmp_path / "lines"),)}
    return (*hooks, "--retries", "0", *words[kind])


@pytest.mark.parametrize("kind", ["map", "batch"])
@covers("map --begin", "map --end", "batch --begin", "batch --end")
def test_each_runner_begins_before_its_first_task_and_ends_after_its_last(shared, tmp_path, kind):
    log = tmp_path / "log"
    begin = f'export X=x; echo y > "$P2PQ_BEGUN"/file; echo begin >> {log}'
    words = hooked(tmp_path, kind, "--begin", begin, "--end", f"echo end $X >> {log}; exit 4")
    done = shared.run("map", *words) if kind == "map" else shared.run("batch", *words)
    printed = ["xy"] * 4 if kind == "map" else [f"xy{number}" for number in "1234"]
    assert (done.returncode, sorted(done.stdout.split())) == (1, printed)
    words = log.read_text().splitlines()
    assert words.count("begin") == words.count("end x") == len(words) // 2 <= 2
    assert "--end failed: it exited with status 4" in done.stderr


@pytest.mark.parametrize("kind", ["map", "batch"])
@covers("map --begin", "batch --begin")
def test_where_the_begin_fails_no_task_runs(shared, tmp_path, kind):
    words = hooked(tmp_path, kind, "--begin", "echo no >&2; exit 3", "--end", f"touch {tmp_path}/ended")
    done = shared.run("map", *words) if kind == "map" else shared.run("batch", *words)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[:4]) == (1, "", ["no"] * 4)
    assert {(task["exit"], task["state"]) for task in shared.json("tasks", latest(shared)["job"])} == {(3, "failed")}
    assert not (tmp_path / "ended").exists()


@pytest.mark.parametrize("kind", ["map", "batch"])
@covers("map --delay", "batch --delay")
def test_the_next_task_starts_when_its_time_has_come_and_can_be_cancelled_until_then(shared, tmp_path, kind):
    log = tmp_path / "log"
    (tmp_path / "lines").write_text(f"echo ran >> {log}\n" * 2)
    words = {"map": (f"echo ran >> {log} # {{}}", ":::", "1", "2"), "batch": (str(tmp_path / "lines"),)}[kind]
    shared.ok("map", "--delay", ".05", *words) if kind == "map" else shared.ok("batch", "--delay", ".05", *words)
    assert log.read_text() == "ran\n" * 2
    delayed = ("--detach", "--delay", "24h", *words)
    job = (shared.ok("map", *delayed) if kind == "map" else shared.ok("batch", *delayed)).strip()
    lab.until(lambda: [each["state"] for each in shared.json("tasks", job)].count("done") == 1, "the first has run")
    # There are two slots: without a delay the second would have run before this.
    assert shared.ok("run", "--", "echo", "free") == "free\n"
    shared.ok("cancel", job)
    assert shared.run("wait", job).returncode != 0
    assert log.read_text() == "ran\n" * 3


def test_another_machine_begins_with_the_files_that_were_sent(pair, tmp_path, monkeypatch):
    alice, bob = pair
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("3\n")
    name = bob.json("status")["name"]
    begin = 'export X=$(cat in.txt); echo kept > "$P2PQ_BEGUN"/file'
    words = ("map", "-k", "--where", name, "--file", "in.txt", "--begin", begin, "--end", "true")
    assert alice.ok(*words, 'echo {} $X $(cat "$P2PQ_BEGUN"/file)', ":::", "a", "b") == "a 3 kept\nb 3 kept\n"
    wrong = ("map", "--where", name, "--begin", "echo oh no >&2; exit 3", "--detach", "echo", ":::", "a")
    job = alice.ok(*wrong).strip()
    lab.until(lambda: "oh no" in alice.ok("why", job), "why it does not run")
    alice.ok("cancel", job)


def in_turns(tmp_path):
    """Return a command for values 1 and 2: 1 begins, 2 says a line, 1 ends; each waits to be told to."""
    wait = f"while [ ! -e {tmp_path}/$1 ]; do sleep 0.02; done"
    return f"wait_for() {{ {wait}; }}; if [ {{}} = 1 ]; then printf begin; wait_for a; echo end; else wait_for b; echo two; fi"


@pytest.mark.parametrize("kind", ["map", "batch"])
@covers("map --line-buffer", "batch --line-buffer", "map --ungroup", "batch --ungroup")
def test_what_tasks_print_may_come_as_they_print_it(shared, tmp_path, kind):
    words = {
        "map": ["map", "OPTION", in_turns(tmp_path), ":::", "1", "2"],
        "batch": ["batch", "OPTION", f"{tmp_path}/lines"],
    }
    (tmp_path / "lines").write_text("".join(in_turns(tmp_path).replace("{}", each) + "\n" for each in "12"))
    for option, before, after in (("--line-buffer", "two\n", "beginend\n"), ("--ungroup", "begin", "end\n")):
        (tmp_path / "a").unlink(missing_ok=True)
        (tmp_path / "b").unlink(missing_ok=True)
        line = [option if word == "OPTION" else word for word in words[kind]]
        with shared.popen(*line) as process:
            if option == "--ungroup":
                assert read(process, len(before)) == before
                (tmp_path / "b").touch()
                assert read(process, 4) == "two\n"
            else:
                (tmp_path / "b").touch()
                assert read(process, len(before)) == before
            (tmp_path / "a").touch()
            assert read(process, len(after)) == after
            assert process.wait(timeout=60) == 0


def read(process, count):
    """Read so many characters; the test's own limit of time ends this if they do not come."""
    return process.stdout.read(count)


@covers("map --files", "batch --files", "map --compress", "batch --compress")
def test_output_may_be_kept_in_temporary_files_whose_names_are_printed(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "lines").write_text("echo b; echo err >&2\necho a\n")
    for words in (["map", "-k", "--files", "sort", ":::", str(tmp_path / "lines")], ["batch", "-k", "--files"]):
        ran = shared.run(*words, *([str(tmp_path / "lines")] if words[0] == "batch" else []))
        names = [pathlib.Path(name) for name in ran.stdout.splitlines()]
        texts = [name.read_text() for name in names]
        assert texts == (["b\n", "a\n"] if words[0] == "batch" else ["echo a\necho b; echo err >&2\n"])
        assert {name.parent for name in names} == {tmp_path}
        assert ("err" in ran.stderr) == (words[0] == "batch")
    tagged = shared.run("map", "--files", "--tag", "echo", ":::", "v").stdout
    value, name = tagged.rstrip("\n").split("\t")
    assert (value, pathlib.Path(name).read_text()) == ("v", "v\n")
    assert shared.run("map", "--compress", "echo", ":::", "1").stdout == "1\n"
    assert shared.run("batch", "--compress", str(tmp_path / "lines"), "-k").stdout == "b\na\n"
    for other in ("--lb", "--results=x"):
        assert "--files says where output is" in shared.fails(2, "map", "--files", other, "echo", ":::", "1")


def test_lines_may_come_in_order_and_tagged_as_they_are_printed(shared, tmp_path):
    with shared.popen("map", "-k", "--lb", "--tag", in_turns(tmp_path), ":::", "1", "2") as process:
        (tmp_path / "b").touch()
        assert read(process, 7) == "1\tbegin"
        (tmp_path / "a").touch()
        assert process.stdout.read() == "end\n2\ttwo\n"
        assert process.wait(timeout=60) == 0


def test_much_that_comes_as_it_is_printed_comes_whole_and_once(shared):
    done = shared.run("map", "--lb", "--tag", "seq {}; sleep 0.4; seq {}", ":::", "100000", "3")
    lines = done.stdout.splitlines()
    for count in (100_000, 3):
        ours = [line.partition("\t")[2] for line in lines if line.startswith(f"{count}\t")]
        assert ours == list(map(str, range(1, count + 1))) * 2


def test_another_machine_is_heard_as_it_prints(pair):
    alice, bob = pair
    name = bob.json("status")["name"]
    with alice.popen("map", "--lb", "--where", name, "echo {}; sleep 600", ":::", "1", "1") as process:
        assert read(process, 2) == "1\n"
        lab.interrupt(process)


@covers("map --quote", "map --trim")
def test_a_command_may_be_quoted_and_columns_keep_their_blanks(shared):
    assert shared.ok("map", "-q", "echo", "a  $HOME;", "{}'s", ":::", "it's") == "a  $HOME; it's's\n"
    assert shared.ok("map", "--quote", "--colsep", ";", "--trim", "n", "echo", "[{2}]", ":::", "a; b ") == "[ b ]\n"
    assert shared.ok("map", "-k", "echo {1} {2}", ":::+", "a", "b", ":::+", "1", "2") == "a 1\nb 2\n"


@covers("map --pipe-part", "map --rrs")
def test_files_are_cut_into_records_without_what_is_between(shared, tmp_path):
    (tmp_path / "genes").write_text(">a\n1\n>b\n2\n")
    options = ("--pipe-part", "-a", str(tmp_path / "genes"), "--recstart", ">", "--rrs")
    assert shared.ok("map", "-k", *options, "-N1", "cat; echo") == "a\n1\n\nb\n2\n\n"
    assert shared.ok("map", "-k", *options, "--block", "-1", "tr -d '\\n'") == "a1b2"
    assert shared.run("map", "--pipe-part", "cat").stderr.endswith(
        "name them with -a FILE, or use --pipe for standard input\n"
    )
