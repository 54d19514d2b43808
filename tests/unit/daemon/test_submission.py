"""From a folder and options to a signed manifest and blobs."""

import os

import pytest
from msgspec import UNSET

from p2pq.daemon import submission
from p2pq.daemon.blobstore import BlobStore
from p2pq.errors import UsageError
from p2pq.model.ids import MeshId
from p2pq.model.job import Resources
from p2pq.model.params import Axis, Range
from p2pq.wire import body, prims, seal, sign
from p2pq.wire.body import JobBody
from p2pq.wire.control import Submit
from p2pq.wire.objects import Manifest
from p2pq.wire.tree import open_chunk, read_part

KEY = prims.SigningKey(b"s" * 32)
AUTHOR = submission.Author(KEY.public, KEY.seed, MeshId(b"m" * 32), "alice")


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mysim"
    path.mkdir()
    (path / "main.py").write_text("print('hello')\n")
    return path


def prepare(folder, blobs, **options):
    return submission.prepare(Submit(folder=str(folder), **options), AUTHOR, blobs, only=b"", now_ms=1_000)


def opened(prepared, blobs):
    manifest = sign.open_signed(prepared.manifest, Manifest, AUTHOR.node)
    parts = {ref.blob: blobs.get(ref.blob) for ref in manifest.body}
    return manifest, body.decrypt(prepared.key, manifest.body, parts, JobBody)


def test_a_folder_becomes_a_signed_manifest_whose_blobs_are_here(folder, blobs):
    prepared = prepare(folder, blobs, args=("--n", "3"), resources=Resources(cpus=2), retries=3, time_s=60)
    manifest, job = opened(prepared, blobs)
    assert (manifest.owner, manifest.job, manifest.tasks) == ("alice", prepared.job, 1)
    assert (manifest.resources.cpus, manifest.retries, manifest.limits.time_s) == (2, 3, 60)
    assert manifest.commit == seal.commitment(prepared.key)
    assert manifest.reply == prims.x25519_public(prepared.reply_secret)
    assert (job.main, job.kind, job.args, job.name) == ("main.py", "python", ("--n", "3"), "mysim")
    chunk = job.tree.chunks[0]
    assert b"hello" in open_chunk(chunk, blobs.get(chunk.blob))
    assert prepared.extra.results == str(folder / "results")
    assert submission.open_sweep(prepared.extra) == submission.Sweep()
    assert submission.open_sweep(None) == submission.Sweep()


def test_nothing_people_wrote_is_in_clear(folder, blobs):
    (folder / "data-secretname.csv").write_text("secretcontent")
    prepared = prepare(folder, blobs, args=("secretarg",), name="secretjob")
    everything = prepared.manifest + b"".join(path.read_bytes() for path in blobs._folder.rglob("*") if path.is_file())
    for secret in (b"secretname", b"secretcontent", b"secretarg", b"secretjob", b"main.py"):
        assert secret not in everything


def test_a_resubmitted_folder_adds_only_its_body(folder, blobs):
    (folder / "big.bin").write_bytes(os.urandom(1 << 20))
    prepare(folder, blobs)
    before = blobs.used_bytes
    prepare(folder, blobs)
    assert blobs.used_bytes - before < 4096


def test_arrays_and_sweeps_multiply(folder, blobs):
    prepared = prepare(folder, blobs, array="1-3", sweep=("k=a,b",))
    manifest, job = opened(prepared, blobs)
    assert manifest.tasks == prepared.extra.tasks == 6
    assert (job.array, job.axes) == ((Range(1, 3),), (Axis("k", ("a", "b")),))
    assert submission.open_sweep(prepared.extra) == submission.Sweep(job.array, job.axes)


def test_values_may_be_given_as_they_are(folder, blobs):
    prepared = prepare(folder, blobs, sweep=("k=a,b",), axes=(Axis("command", ("x, y", "0:1:0.5", "")),))
    manifest, job = opened(prepared, blobs)
    assert manifest.tasks == 6
    assert job.axes == (Axis("k", ("a", "b")), Axis("command", ("x, y", "0:1:0.5", "")))


def test_what_stays_goes_to_no_folder(folder, blobs):
    extra = prepare(folder, blobs, stays=True).extra
    assert (extra.results, extra.place) == ("", "")


@pytest.mark.parametrize(
    ("name", "mode", "kind"), [("main.sh", 0o644, "shell"), ("main.sh", 0o755, "command"), ("main", 0o755, "command")]
)
def test_the_kind_follows_from_the_main(tmp_path, blobs, name, mode, kind):
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(mode)
    assert opened(prepare(folder, blobs), blobs)[1].kind == kind


def test_a_script_may_want_a_fresh_interpreter(folder, blobs):
    warm = prepare(folder, blobs)
    cold = prepare(folder, blobs, cold=True)
    assert [opened(each, blobs)[1].kind for each in (warm, cold)] == ["python", "python-cold"]
    assert warm.extra.inputs == cold.extra.inputs  # what it computes is the same
    (folder / "pyproject.toml").write_text("[tool.p2pq]\nwarm = false\n")
    assert opened(prepare(folder, blobs), blobs)[1].kind == "python-cold"
    (folder / "pyproject.toml").write_text("[tool.p2pq]\nwarm = 'no'\n")
    with pytest.raises(UsageError, match="is not usable"):
        prepare(folder, blobs)


def test_a_config_inside_the_folder_is_named_where_it_is(folder, blobs):
    (folder / "conf").mkdir()
    (folder / "conf/a.toml").write_text("x = 1")
    assert opened(prepare(folder, blobs, config=str(folder / "conf/a.toml")), blobs)[1].config == "conf/a.toml"


@pytest.mark.parametrize("inside", [True, False])
def test_a_config_that_would_not_travel_is_added(folder, blobs, tmp_path, inside):
    config = (folder if inside else tmp_path) / "a.toml"
    config.write_text("x = 1")
    _, job = opened(prepare(folder, blobs, config=str(config), exclude=("*.toml",)), blobs)
    assert job.config == "a.toml"
    found = {file.path: file for file in job.tree.files}
    part = found["a.toml"].parts[0]
    chunk = job.tree.chunks[part.chunk]
    assert open_chunk(chunk, blobs.get(chunk.blob))[part.offset :][: part.length] == b"x = 1"
    assert found["main.py"].size == len("print('hello')\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: {"config": str(folder / "none.toml")}, "not a file"),
        (lambda folder: {"exclude": ("main.py", "!other")}, "no file|leaves it out"),
        (lambda folder: {"main": "data.txt"}, "chmod"),
        (lambda folder: {"main": "gone.py"}, "no file"),
        (lambda folder: {"array": "9-1"}, "--array"),
        (lambda folder: {"sweep": ("k",)}, "--sweep"),
        (lambda folder: {"args": ("{k}" * 1000,), "sweep": ("k=" + "v" * 10_000,)}, "use a file"),
        (lambda folder: {"folder": str(folder / "gone")}, "does not exist"),
    ],
)
def test_what_is_not_usable_is_refused_in_one_sentence_and_holds_nothing(folder, blobs, change, said):
    (folder / "data.txt").write_text("data")
    options = {"folder": str(folder), **change(folder)}
    with pytest.raises(UsageError, match=said):
        submission.prepare(Submit(**options), AUTHOR, blobs, only=b"", now_ms=0)
    assert not blobs._tags


def test_data_travels_beside_the_files(folder, blobs, tmp_path):
    (tmp_path / "x.pickle").write_bytes(b"data")
    _, job = opened(prepare(folder, blobs, data=str(tmp_path / "x.pickle")), blobs)
    [file] = [file for file in job.tree.files if file.path == ".p2pq/data.pickle"]
    assert b"".join(read_part(job.tree, part, blobs.get) for part in file.parts) == b"data"
    (folder / ".p2pq").mkdir()
    (folder / ".p2pq/data.pickle").write_text("of an earlier task, and never sent")
    assert opened(prepare(folder, blobs, data=str(tmp_path / "x.pickle")), blobs)[1].tree == job.tree


def test_a_foreign_config_of_a_taken_name_is_refused(folder, blobs, tmp_path):
    (folder / "a.toml").write_text("inner")
    (tmp_path / "a.toml").write_text("outer")
    with pytest.raises(UsageError, match="rename"):
        prepare(folder, blobs, config=str(tmp_path / "a.toml"))


def test_a_main_that_is_ignored_is_refused(folder, blobs):
    (folder / "other.txt").write_text("x")
    with pytest.raises(UsageError, match="leaves it out"):
        prepare(folder, blobs, exclude=("main.py",))


@pytest.mark.parametrize(
    ("results", "stays"),
    [
        ("out", {"main.py", "out.txt"}),
        ("deep/o [1]", {"main.py", "out.txt", "deep/x"}),
        ("../out", {"main.py", "out.txt", "out/y", "deep/x"}),
        ("", {"main.py", "out.txt", "out/y", "deep/x"}),
    ],
)
def test_results_of_earlier_jobs_are_no_input_whatever_they_are_called(folder, blobs, results, stays):
    for path in ("out.txt", "out/y", "deep/x", "deep/o [1]/z", "deep/o [1].~12~/z", "out.~1~/z"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")
    place = str(folder / results) if results else ""
    _, job = opened(prepare(folder, blobs, results=place), blobs)
    found = {file.path for file in job.tree.files}
    assert stays <= found
    assert not any(path.startswith((f"{results}/", f"{results}.~")) for path in found)


@pytest.mark.parametrize("kind", ["folder", "file", "pipe", "link"])
@pytest.mark.parametrize("results", ["", "out"])
def test_nothing_called_results_travels_whatever_it_is(folder, blobs, kind, results):
    """Every task has a folder of that name: with a file there each attempt failed, as if by its worker's disk."""
    place = folder / "results"
    match kind:
        case "folder":
            place.mkdir()
            (place / "x").touch()
        case "file":
            place.write_text("x")
        case "pipe":
            os.mkfifo(place)
        case "link":
            place.symlink_to("/etc")
    options = {"results": str(folder / results)} if results else {}
    if kind == "link" and not results:
        with pytest.raises(
            UsageError, match="results is a link; to have results there, say --results /etc; else remove"
        ):
            prepare(folder, blobs)
        assert not blobs._tags
        return
    prepared = prepare(folder, blobs, **options)
    assert [file.path for file in opened(prepared, blobs)[1].tree.files] == ["main.py"]
    what = {"folder": [], "link": ["a link"]}.get(kind, ["no folder"])
    assert [warning.partition(" and stays at home")[0] for warning in prepared.warnings] == [
        f"results is {each}" for each in what
    ]


def test_inputs_are_the_same_until_something_that_matters_changes(folder, blobs):
    (folder / "data").mkdir()
    for number in range(50):
        (folder / "data" / str(number)).write_text("x" * number)

    def inputs(**options):
        return prepare(folder, blobs, **options).extra.inputs

    first = inputs(sweep=("k=1,2",))
    assert first == inputs(sweep=("k=1,2,3",), name="other", priority=5, retries=7)
    assert first not in {inputs(sweep=("j=1,2",)), inputs(sweep=("k=1,2",), args=("x",)), inputs()}
    (folder / "data" / "49").write_text("y")
    assert first != inputs(sweep=("k=1,2",))


def test_what_its_files_ask_for_is_a_need(folder, blobs):
    def needs(**options):
        return opened(prepare(folder, blobs, **options), blobs)[0].resources.needs

    assert needs() == ()
    (folder / "requirements.txt").write_text("numpy\n")
    assert needs(resources=Resources(needs=(("os", "linux"),))) == (("os", "linux"), ("env", "uv"))
    assert needs(resources=Resources(needs=(("env", "uv"),))) == (("env", "uv"),)
    assert needs(env="none") == ()
    assert needs(exclude=("requirements.txt",)) == ()
    with pytest.raises(UsageError, match="at most 31 --need"):
        needs(resources=Resources(needs=(("os", "linux"),) * 32))
    (folder / "requirements.txt").write_text("-e .\n")
    with pytest.raises(UsageError, match="-e is not supported"):
        needs()


def test_what_runners_run_before_and_after_all_tasks_is_in_the_body(folder, blobs):
    _, packed = opened(prepare(folder, blobs, hooks=("export A=1", "")), blobs)
    assert (packed.begin, packed.end) == ("export A=1", UNSET)


@pytest.mark.parametrize("line", ["a\0b", "x" * (body.HOOK_CHARS_MAX + 1)])
def test_what_no_shell_can_be_given_is_refused(folder, blobs, line):
    with pytest.raises(UsageError, match=r"--end is longer than .* zero byte; put it into a script"):
        prepare(folder, blobs, hooks=("", line))
    assert not blobs._tags
