"""What people see on terminals of any width and after mistakes."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pq.cli import checks, jobs, nodes
from p2pq.cli.common import table
from p2pq.cli.main import main
from p2pq.wire.control import Counts, Finding, JobView, TaskView


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_is_never_cut_off(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    table(
        ("JOB", "DONE", "RESULTS"), [("jlk7adew", 8, "/home/ada/work/pi/results"), ("kbx2mnop", 12, "/r")], right=(1,)
    )
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == ("\x1b[1mJOB       DONE  RESULTS\x1b[0m" if terminal else "JOB       DONE  RESULTS")
    assert first == "jlk7adew     8  /home/ada/work/pi/results"
    assert second == "kbx2mnop    12  /r"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["bogus"], "There is no command 'bogus'. (see `p2pq --help`)"),
        (["staus"], "Did you mean `p2pq status`?"),
        (["show", "jlk7.99999999999999999999999"], "no task has so large a number; see `p2pq tasks jlk7`"),
        (["logs", f"jlk7.{(1 << 40) + 1}"], "no task has so large a number; see `p2pq tasks jlk7`"),
        (["retry", "jlk7." + "9" * 5000], "no task has so large a number; see `p2pq tasks jlk7`"),
        (["cancel", "jlk7.1" + "0" * 20], "no task has so large a number; see `p2pq tasks jlk7`"),
        (["why", "jlk7.x"], "is not JOB or JOB.TASK"),
        (["logs", "jlk7", "--attempt", "9" * 30], "is not in the range 1<=x<=1048576"),
        (["wait", "jlk7", "--timeout", "9" * 30], "is not a duration"),
        (["submit", ".", "--halt", ""], "--halt '' is not known; write it like never, now,fail=1"),
        (["submit", ".", "--halt", "now,fail=1 "], "--halt 'now,fail=1 ' is not known"),
        (["submit", ".", "--memory", "9" * 400], "is not a size"),
        (["completion"], "Choose from: bash, zsh, fish (see `p2pq completion --help`)"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_doctor_names_what_is_wrong_with_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text("[node]\nslotz = 3\n")
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home), "doctor"])
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert f"FAIL  settings: unknown setting node.slotz, did you mean `node.slots`? ({home}/config.toml)" in shown
    assert "FAIL  node: no node" in shown
    assert "-> start one with `p2pq start`" in shown


@pytest.mark.parametrize(
    ("proved", "code", "said"),
    [
        (
            "basic",
            0,
            (
                "ok    bubblewrap: it is not installed; the sandbox basic, which is weaker than strict, is used instead\n"
                "      -> for strict, install it, for instance: sudo apt install bubblewrap\n"
            ),
        ),
        ("none", 1, "FAIL  bubblewrap: it is not installed, so other people's tasks are refused here and"),
        ("unknown", 1, "FAIL  bubblewrap: it is not installed, so other people's tasks are refused here and"),
    ],
)
def test_doctor_says_that_the_weaker_sandbox_is_used_without_bubblewrap(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    proved: str,
    code: int,
    said: str,
) -> None:
    class Node:
        welcome = SimpleNamespace(name="ann")

        def all(self, *_: object) -> list[Finding]:
            return [Finding(check="sandbox", ok=proved != "none", detail="it held")]

        def one(self, *_: object) -> SimpleNamespace:
            return SimpleNamespace(sandbox=proved)

    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    monkeypatch.setattr(nodes, "connect", lambda _: nullcontext(Node()))
    monkeypatch.setattr(checks.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(checks, "FREE_BYTES_MIN", 0)
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(tmp_path / "home"), "doctor"])
    assert ended.value.code == code
    assert said in capsys.readouterr().out


def test_a_task_is_listed_with_the_attempt_that_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Node:
        def all(self, *_: object) -> list[TaskView]:
            won = TaskView(task=0, state="done", params={}, node="ann", attempt=1, attempts=2)
            return [won, TaskView(task=1, state="pending", params={})]

    monkeypatch.setattr(jobs, "connect", lambda _: nullcontext(Node()))
    with pytest.raises(SystemExit):
        main(["tasks", "job"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["0", "done", "ann", "1"], ["1", "pending"]]
    with pytest.raises(SystemExit):
        main(["tasks", "job", "--json"])
    assert [(task["attempt"], task["attempts"]) for task in json.loads(capsys.readouterr().out)] == [(1, 2), (0, 0)]


@pytest.mark.parametrize(("results", "said"), [("/r", "; results in /r"), ("", "")])
def test_where_results_are_is_said_if_there_are_any(
    results: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = Counts(total=2, done=1, failed=1)
    fields = {"owner": "a", "attempts": 2, "submitted": "", "halted": "halted after 1 success"}
    jobs.say_end(JobView(job="j", name="n", state="done", tasks=counts, results=results, **fields), quiet=False)
    assert capsys.readouterr().err == f"p2pq: n: 1 of 2 done, 1 failed, halted after 1 success{said}\n"
