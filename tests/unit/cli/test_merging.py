"""The results of many tasks as one folder."""

import pytest

from p2pq.cli import merging
from p2pq.errors import UsageError
from p2pq.wire.control import TaskView


@pytest.fixture
def task(tmp_path):
    """Give a function that makes a task with files of results."""

    def make(number, files=None, state="done", **params):
        folder = tmp_path / "results" / str(number)
        for path, text in (files or {}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        results = str(folder) if files is not None else None
        return TaskView(
            task=number, state=state, params=params, results=results, exit=0, seconds=1.5, node="n", attempts=1
        )

    return make


def there(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_files_of_one_name_become_one(task, tmp_path):
    more = {"k": "8,9", "x": "3"}
    tasks = [
        task(0, {"o.csv": 'x,y\n1,"a\nb"\n2,c\n', "d/log.txt": "zero", "p.npy": "P0", ".progress": "1"}, k="7", x="2"),
        task(
            1, {"o.csv": "x,y\n3,d\n", "d/log.txt": "one\n", "p.npy": "P1", "raw": "r", "t.tsv": "a\tb\n1\t2\n"}, **more
        ),
        task(2, {"e.csv": "", "d/log.txt": ""}, k="8", x="4"),
    ]
    merged = merging.merge(tasks, tmp_path / "m")
    assert (merged.tasks, merged.files, merged.notes) == (3, 7, [])
    found = there(tmp_path / "m")
    assert found.pop("tasks.csv").splitlines() == [
        "task,k,x,state,exit,seconds,node,attempts",
        "0,7,2,done,0,1.5,n,1",
        '1,"8,9",3,done,0,1.5,n,1',
        "2,8,4,done,0,1.5,n,1",
    ]
    assert found == {
        "o.csv": 'task,k,p2pq.x,x,y\n0,7,2,1,"a\nb"\n0,7,2,2,c\n1,"8,9",3,3,d\n',
        "t.tsv": "task\tk\tx\ta\tb\n1\t8,9\t3\t1\t2\n",
        "e.csv": "",
        "d/log.txt": "zero\none\n",
        "p.0.npy": "P0",
        "p.1.npy": "P1",
        "raw.1": "r",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "results"]


def test_tables_of_several_kinds_lie_side_by_side(task, tmp_path):
    wide = "x\n" + "y" * 200_000 + "\n"
    tasks = [task(0, {"o.csv": "x\n1\n", "w.csv": wide}), task(1, {"o.csv": "y\n1\n"})]
    merged = merging.merge(tasks, tmp_path / "m")
    assert sorted(there(tmp_path / "m")) == ["o.0.csv", "o.1.csv", "tasks.csv", "w.0.csv"]
    assert merged.notes == [
        "o.csv: its first lines differ; the tables lie side by side",
        "w.csv: field larger than field limit (131072); the tables lie side by side",
    ]


def test_tasks_that_have_none_are_left_out(task, tmp_path):
    tasks = [
        task(0, {"a.txt": "a\n"}),
        task(1, {"a.txt": "half"}, state="failed"),
        task(2),
        task(3, {"tasks.csv": "x\n"}),
    ]
    (tmp_path / "results/0/link").symlink_to("/etc/passwd")
    merged = merging.merge(tasks, tmp_path / "m")
    assert merged.notes == [
        "2 of 4 tasks have not succeeded, or have no results here, and are left out",
        "1 link is left out",
    ]
    assert sorted(there(tmp_path / "m")) == ["a.txt", "p2pq-tasks.csv", "tasks.csv"]
    assert (tmp_path / "m/a.txt").read_text() == "a\n"


def test_nothing_is_overwritten_and_nothing_half_written(task, tmp_path, monkeypatch):
    tasks = [task(0, {"a.txt": "a"})]
    (tmp_path / "full/x").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("full", "file"):
        with pytest.raises(UsageError, match="is there already; remove it, or name another folder with --to DIR"):
            merging.merge(tasks, tmp_path / name)
    with pytest.raises(UsageError, match="no task has results here"):
        merging.merge([task(1, {}, state="failed"), task(2)], tmp_path / "m")
    (tmp_path / "m").mkdir()
    (tmp_path / ".p2pq-merging-m").mkdir()
    (tmp_path / ".p2pq-merging-m/left").write_text("of one that was killed")
    merging.merge(tasks, tmp_path / "m")
    assert sorted(there(tmp_path / "m")) == ["a.txt", "tasks.csv"]
    monkeypatch.setattr(merging, "_write_overview", lambda *_all: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        merging.merge(tasks, tmp_path / "n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "m", "results"]
