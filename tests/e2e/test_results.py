"""Results that do not come back, or not whole: nothing is dropped in silence, nothing is tried for ever."""

import shutil

import lab

from tests.covers import covers

ODD = """
import os, sys
what = sys.argv[1]
os.chdir("results")
if what == "odd":
    os.mkfifo("pipe"); os.symlink("/etc/passwd", "passwd"); open("fine", "w").close()
if what == "closed":
    os.makedirs("d"); open("d/x", "w").write("x"); os.chmod("d/x", 0); os.chmod("d", 0); os.chmod(".", 0)
if what == "replaced":
    os.chdir(".."); os.rename("results", "out"); os.symlink("out", "results")
"""
SLOW = "import os, time; time.sleep(1.5); open('results/out', 'w').write(os.environ['P2PQ_ATTEMPT'] * 1000)"


def test_what_a_task_leaves_comes_back_or_is_named(shared, tmp_path):
    folder = lab.make_folder(tmp_path / "job", ODD)
    done = shared.run("submit", "--sweep", "what=odd,closed,replaced", "--retries", "0", str(folder), "{what}")
    assert done.returncode == 1
    job = shared.json("jobs")[0]["job"]
    assert (
        "task 0 left results behind that cannot travel (pipe: is a pipe, a socket or a device; passwd: " in done.stderr
    )
    odd, closed, replaced = shared.json("tasks", job)
    assert [each["state"] for each in (odd, closed, replaced)] == ["done", "done", "failed"]
    assert len(odd["skipped"]) == 2
    assert closed["skipped"] == []
    assert replaced["reason"] == "results is a link now, not a folder; nothing of it was taken along"
    found = sorted(str(path.relative_to(folder)) for path in (folder / "results").rglob("*") if path.is_file())
    assert found == ["results/0/fine", "results/1/d/x"]
    assert "left behind  pipe: is a pipe" in shared.ok("show", f"{job}.0")


def test_a_job_whose_results_cannot_be_written_is_ended_by_cancelling_it(home, tmp_path):
    home.start("--slots", "2")
    folder = lab.make_folder(tmp_path / "job", SLOW)
    place = tmp_path / "place"
    place.mkdir()
    job = home.submit("--array", "0-1", "--results", str(place / "results"), str(folder))
    shutil.rmtree(place)
    place.write_text("a file in its place")
    lab.until(lambda: "cannot be written out" in home.ok("why", job), "stuck")
    lab.until(lambda: home.json("show", job)["tasks"]["done"] == 2, "done")

    def ended():
        home.ok("cancel", job)
        return home.json("show", job)["state"] == "cancelled"

    lab.until(ended, "cancelled")
    home.ok("results", job, "--to", str(tmp_path / "to"))
    assert (tmp_path / "to/1/out").read_text() == "1" * 1000


def test_results_that_are_damaged_on_the_owners_disk_run_again(home, tmp_path):
    home.start("--slots", "1")
    folder = lab.make_folder(tmp_path / "job", SLOW)
    place = tmp_path / "place"
    place.mkdir()
    job = home.submit("--results", str(place / "results"), str(folder))
    inputs = set((home.home / "blobs").rglob("*"))
    shutil.rmtree(place)
    place.write_text("a file in its place")
    lab.until(lambda: "cannot be written out" in home.ok("why", job), "stuck")
    for path in set((home.home / "blobs").rglob("*")) - inputs:
        if path.is_file():
            path.write_bytes(b"rotten")
    place.unlink()
    home.ok("wait", job)
    assert (place / "results/out").read_text() == "2" * 1000
    assert "results.lost" in home.whole_log()


def test_a_job_whose_files_are_lost_ends_with_a_reason(home, tmp_path):
    home.start("--slots", "1")
    job = home.submit("--array", "0-9", str(lab.make_folder(tmp_path / "job", SLOW)))
    for path in list((home.home / "blobs").rglob("*")):
        if path.is_file():
            path.unlink()
    assert home.run("wait", job).returncode == 1
    shown = home.json("show", job)
    assert shown["state"] == "cancelled"
    assert "its files are lost" in shown["halted"]
    assert "submit the folder again" in home.ok("why", job)
    home.ok("submit", "--quiet", str(lab.make_folder(tmp_path / "other", "pass")))


@covers("results --merge")
def test_results_of_many_tasks_are_put_together(shared, tmp_path):
    source = "import sys; print('y', int(sys.argv[1]) ** 2, sep='\\n', file=open('results/o.csv', 'w'))"
    source += "; open('results/log.txt', 'w').write('x')"
    folder = lab.make_folder(tmp_path / "job", source)
    shared.ok("submit", "--quiet", "--sweep", "k=2,3", str(folder), "{k}")
    job = shared.json("jobs")[0]["job"]
    said = shared.ok("results", job, "--merge")
    assert said == f"2 tasks merged into 2 files in {folder}/results/merged\n"
    assert (folder / "results/merged/o.csv").read_text() == "task,k,y\n0,2,4\n1,3,9\n"
    assert (folder / "results/merged/log.txt").read_text() == "x\nx\n"
    assert shared.run("results", job, "--merge").returncode == 2
    told = shared.json("results", job, "--merge", "--to", str(tmp_path / "to"))
    assert told == {"folder": str(tmp_path / "to"), "tasks": 2, "files": 2}
    commands = shared.ok("map", "--detach", "echo", ":::", "a", "b").strip()
    assert "`p2pq logs" in shared.run("results", commands, "--merge").stderr
    shared.ok("submit", "--quiet", str(lab.make_folder(tmp_path / "one", "")))
    assert "nothing to merge" in shared.run("results", shared.json("jobs")[0]["job"], "--merge").stderr
