"""Files of commands on their way to other machines and back."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from p2pq.cli import sending
from p2pq.cli.sending import MAIN, Sending, plain_path
from p2pq.errors import UsageError

OPTIONS = {
    "cpus": 1, "memory": "", "gpus": 0, "time_limit": "5m", "retries": 2, "priority": 4, "where": "any", "halt": "now,fail=1",
}  # fmt: skip


def there(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("path", "found"), [("a", "a"), ("./a//b", "a/b"), ("a/../b", "b"), ("a/", "a"), ("results.txt", "results.txt")]
)
def test_a_path_below_this_folder(path, found):
    assert plain_path("--file", path) == found


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/etc/passwd", "is not below this folder; go to one that holds it"),
        ("../x", "is not below this folder"),
        ("a/../../x", "is not below this folder"),
        (".", "is not below this folder"),
        ("", "is not below this folder"),
        ("results/x", "has something of its own of that name; rename it"),
        (MAIN, "has something of its own of that name"),
        ("x" * 300, "a name is too long"),
    ],
)
def test_a_path_that_cannot_travel(path, sentence):
    with pytest.raises(UsageError, match=sentence):
        plain_path("--file", path)


def test_what_is_asked_of_the_node(here):
    (here / "x").write_text("")
    with Sending(["echo a"], ["x"], []) as sent:
        request = sent.request(OPTIONS, "n")
        assert (request.name, request.time_s, request.retries, request.priority) == ("n", 300, 2, 4)
        assert (request.halt, request.exclude, request.results, request.stays) == ("now,fail=1", ("!*",), "", True)
        assert (request.args, request.axes[0].values) == (("{command}",), ("echo a",))
        assert there(here / request.folder) == [MAIN, "x"]
        sent.bring()
    assert there(here) == ["x"]


def test_files_are_not_copied_and_folders_go_with_all_that_is_in_them(here):
    (here / "d/e").mkdir(parents=True)
    (here / "d/e/f").write_text("x")
    (here / "d/.p2pq-files-1").mkdir()
    (here / "link").symlink_to("d/e/f")
    (here / "d/e/g").write_text("y")
    with Sending(["true"], ["d/e/f", "d", "link", "d"], []) as sent:
        folder = here / sent.request(OPTIONS, "").folder
        assert (folder / "d/e/f").samefile(here / "d/e/f")
        assert (folder / "d/e/g").read_text() == "y", "a folder is whole, whatever of it was named before"
        assert stat.S_ISREG((folder / "link").lstat().st_mode)
        assert not (folder / "d/.p2pq-files-1").exists()


def test_files_are_copied_where_they_cannot_be_in_two_places(here, monkeypatch):
    def refuse(*_args):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (here / "x").write_text("x")
    with Sending(["true"], ["x"], []) as sent:
        folder = here / sent.request(OPTIONS, "").folder
        assert (folder / "x").read_text() == "x"
        assert not (folder / "x").samefile(here / "x")


def test_a_file_that_cannot_be_had(here):
    os.mkfifo(here / "pipe")
    (here / "d").mkdir()
    (here / "d/broken").symlink_to("nowhere")
    for name, sentence in (
        ("none", "--file none: No such file"),
        ("pipe", "is no file"),
        ("d", "--file d: .*No such file"),
    ):
        with pytest.raises(UsageError, match=sentence):
            Sending(["true"], [name], [])
    assert there(here) == ["d", "pipe"], "nothing is left behind"


def test_a_folder_that_cannot_be_written_to_is_none_to_put_things_together_in(here, tmp_path, monkeypatch):
    real = sending.tempfile.mkdtemp

    def make(prefix, dir=None):  # noqa: A002  as tempfile has it
        if dir is not None:
            raise PermissionError(13, "Permission denied")
        return real(prefix=prefix, dir=tmp_path)

    monkeypatch.setattr(sending.tempfile, "mkdtemp", make)
    with Sending(["true"], [], []) as sent:
        assert sent.request(OPTIONS, "").folder.startswith(str(tmp_path / ".p2pq-files-"))
    assert there(here) == []


def run(lines, returns, task=0):
    """Run a task's script as a worker does, and return how it ended and what it left."""
    sent = Sending(lines, [], returns)
    request = sent.request(OPTIONS, "")
    script = ["/bin/sh", MAIN, request.axes[0].values[task]]
    Path(request.folder, "results").mkdir()
    done = subprocess.run(script, cwd=request.folder, capture_output=True, text=True, check=False)
    found = sorted(
        os.path.relpath(f"{root}/{name}", f"{request.folder}/results")
        for root, _, files in os.walk(f"{request.folder}/results")
        for name in files
    )
    sent.clear()
    return done.returncode, done.stdout, done.stderr, found


def test_a_task_runs_its_line_alone_in_its_folder():
    assert run(["ls; echo 'a  b' >&2; exit 7"], []) == (7, "results\n", "a  b\n", [])
    assert run(["kill -9 $$"], [])[0] == -9


def test_a_task_leaves_what_it_is_to_return():
    made = "echo x > 'a b'; mkdir -p d/e; echo y > d/e/f; echo z > results/r; echo no > other"
    wanted = ["a b", "d", "results/r"]
    assert run(["false", made], [["q"], wanted], 1) == (0, "", "", ["a b", "d/e/f", "results/r"])
    assert run([f"{made}; exit 3"], [[*wanted, "none"]]) == (3, "", "", ["a b", "d/e/f", "results/r"])
    said = "p2pq: the command succeeded, but there is no 'none' to return\n"
    assert run([made], [["none", "a b"]]) == (1, "", said, ["a b", "r"])


def test_what_comes_back_is_put_where_it_was_asked_for_and_nothing_else(here, capsys):
    (here / "old").write_text("old")
    (here / "d").mkdir()
    (here / "d/stays").write_text("")
    with Sending(["x", "y"], [], [["old", "d", "l"], ["n/m"]]) as sent:
        results = here / sent.request(OPTIONS, "").results
        sent.bring()  # nothing has come yet
        (results / "0/d/e").mkdir(parents=True)
        (results / "0/d/e/f").write_text("new")
        (results / "0/d/trap").symlink_to("/etc")
        (results / "0/old").write_text("new")
        (results / "0/l").symlink_to("/etc")
        (results / "0/unasked").write_text("")
        (results / ".p2pq-half").mkdir()
        (results / "7").mkdir()
        sent.bring()
        assert (here / "old").read_text() == "new"
        assert sorted(path.name for path in (here / "d").rglob("*")) == ["e", "f", "stays"]
        assert not (here / "l").is_symlink()
        assert not (results / "0").exists()
        (results / "1/n").mkdir(parents=True)
        (results / "1/n/m").write_text("1")
        sent.bring()
        assert (here / "n/m").read_text() == "1"
    assert there(here) == ["d", "n", "old"]
    assert capsys.readouterr().err.splitlines() == [
        "p2pq: d/trap came back as a link, and was left out",
        "p2pq: l came back as a link, and was left out",
    ]


def test_what_is_on_another_disk_is_copied(here, monkeypatch):
    def refuse(_self, _target):
        raise OSError(18, "Invalid cross-device link")

    with Sending(["x"], [], [["o"]]) as sent:
        results = here / sent.request(OPTIONS, "").results
        results.mkdir()
        (results / "o").write_text("x")
        monkeypatch.setattr("pathlib.Path.replace", refuse)
        sent.bring()
    assert (here / "o").read_text() == "x"


def test_what_cannot_be_put_there_is_said(here):
    (here / "o").mkdir()
    with Sending(["x"], [], [["o"]]) as sent:
        results = here / sent.request(OPTIONS, "").results
        results.mkdir()
        (results / "o").write_text("x")
        with pytest.raises(OSError, match="directory"):
            sent.bring()


def test_whoever_does_not_wait_finds_it_in_a_folder_of_its_own(here, capsys):
    with Sending(["x", "y"], [], [["o"], ["o"]], detached=True) as sent:
        results = here / sent.request(OPTIONS, "").results
        sent.say_where()
        results.mkdir()
    assert there(here) == [results.name]
    assert capsys.readouterr().err == f"p2pq: what it returns comes to {results.name}/TASK/\n"
    with Sending(["x"], [], [], detached=True) as sent:
        sent.say_where()
    assert capsys.readouterr().err == ""
