"""Jobs of commands as they come in."""

import asyncio

import pytest

from p2pq.core.effects import Deliver
from p2pq.core.events import Delivered, Submitted
from p2pq.daemon.commands import Commands
from p2pq.daemon.feeding import Uploads
from p2pq.errors import NotFoundError, RefusedError, UsageError
from p2pq.model.params import ARGV_CHARS_MAX
from p2pq.model.sources import Source
from p2pq.wire import body as bodies
from p2pq.wire import control, sign
from p2pq.wire.body import CommandsBody
from p2pq.wire.commandcontrol import KeepInput, SubmitCommands
from p2pq.wire.objects import Manifest
from p2pq.wire.resultcontrol import Results
from tests.unit.daemon.jobskit import AUTHOR, id_of


def commands_of(rig, uploads=None, opened=lambda job, body: None):
    return Commands(
        jobs=rig.jobs,
        store=rig.store,
        blobs=rig.blobs,
        uploads=Uploads(rig.blobs, AUTHOR.chunk_keys()) if uploads is None else uploads,
        opened=opened,
        post_durable=rig.post_durable,
    )


async def submit(rig, *words, values=(), **fields):
    sources = (Source(tuple(values)),) if values else ()
    plain = {"words": words, "sources": sources, "cwd": "/work", "environment": b"A=1\0"}
    return (await rig.ask(commands_of(rig).submit, SubmitCommands(**(plain | fields))))[-1]


async def test_commands_are_durable_before_they_are_said_and_stay_here(rig):
    view = await submit(rig, "echo", "{}", values=("a", "b"), retries=2, priority=3)
    event = rig.posted[-1]
    assert isinstance(event, Submitted)
    manifest = sign.open_signed(event.manifest, Manifest, AUTHOR.node)
    assert (manifest.only, manifest.sandbox, manifest.tasks) == (AUTHOR.node, "none", 2)
    assert (manifest.retries, manifest.priority, manifest.blobs) == (2, 3, ())
    parts = {ref.blob: rig.blobs.get(ref.blob) for ref in manifest.body}
    assert bodies.decrypt_job(event.key, manifest.body, parts) == CommandsBody(
        name="echo {}", words=("echo", "{}"), sources=(Source(("a", "b")),), cwd="/work", environment=b"A=1\0"
    )
    assert (view.name, view.folder, view.results, view.tasks.total) == ("echo {}", "/work", "", 2)
    tasks = await rig.ask(rig.jobs.tasks, control.Tasks(job=view.job))
    assert [task.params for task in tasks] == [{"1": "a"}, {"1": "b"}]


async def test_whoever_runs_them_need_not_open_them(rig):
    opened = []
    request = SubmitCommands(words=("echo",), cwd="/work", environment=b"A=1\0", shell=False)
    await rig.ask(commands_of(rig, opened=lambda *told: opened.append((*told, list(rig.posted)))).submit, request)
    manifest = sign.open_signed(rig.posted[-1].manifest, Manifest, AUTHOR.node)
    parts = {ref.blob: rig.blobs.get(ref.blob) for ref in manifest.body}
    body = bodies.decrypt_job(rig.posted[-1].key, manifest.body, parts)
    assert opened == [(manifest.job, body, [])], "before the core hears of it, and may start it"


UPLOAD = b"u" * 16


@pytest.fixture
async def uploads(rig):
    uploads = Uploads(rig.blobs, AUTHOR.chunk_keys())
    await uploads.keep(KeepInput(upload=UPLOAD, data=b"abc"), rig.send)
    return uploads


async def test_their_standard_input_is_theirs_as_long_as_they_live(rig, uploads):
    request = SubmitCommands(words=("cat",), shell=False, cwd="/", environment=b"", stdin=(1, 0, 2), upload=UPLOAD)
    view = (await rig.ask(commands_of(rig, uploads).submit, request))[-1]
    event = rig.posted[-1]
    manifest = sign.open_signed(event.manifest, Manifest, AUTHOR.node)
    parts = {ref.blob: rig.blobs.get(ref.blob) for ref in manifest.body}
    feed = bodies.decrypt_job(event.key, manifest.body, parts).stdin
    [chunk] = feed.chunks
    assert (manifest.tasks, view.tasks.total, feed.sizes) == (3, 3, (1, 0, 2))
    assert [ref.blob for ref in manifest.blobs] == [chunk.blob]
    assert rig.blobs._tags == {manifest.job: {chunk.blob, *(ref.blob for ref in manifest.body)}}
    assert not rig.blobs._dirty, "it is on the disk before its job is said to be"
    row = rig.jobs.catalogue.find(view.job)
    assert [rig.jobs.catalogue.index(row, number) for number in range(3)] == [0, 1, 2]
    with pytest.raises(NotFoundError, match="no task 3"):
        rig.jobs.catalogue.index(row, 3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stdin": (1, 2), "sources": (Source(("a",)),), "shell": True}, "for 2 tasks, and there are 1"),
        ({"stdin": (1, 1)}, "not what was sent"),
        ({"stdin": ()}, "for 0 tasks, and there are 1"),
    ],
)
async def test_standard_input_that_does_not_fit_is_refused_and_let_go_of(rig, uploads, fields, words):
    request = {"words": ("cat",), "shell": False, "cwd": "/", "environment": b"", "upload": UPLOAD} | fields
    with pytest.raises(UsageError, match=words):
        await rig.ask(commands_of(rig, uploads).submit, SubmitCommands(**request))
    assert not rig.blobs._tags


async def test_two_of_them_may_come_at_once_and_leave_folders_without_results_alone(rig, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    async with asyncio.TaskGroup() as group:
        group.create_task(submit(rig, "true", cwd=str(tmp_path)))
        group.create_task(submit(rig, "true", cwd=str(tmp_path)))
    folder = tmp_path / "sim"
    folder.mkdir()
    (folder / "main.py").write_text("")
    await rig.submit(folder, results=str(out))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"words": ()}, "there is no command"),
        ({"cwd": "work"}, "absolute path"),
        ({"shell": False, "values": ("a",)}, "a single task"),
        ({"values": ("x" * 60_000,), "words": ("{}" * 100,)}, f"longer than {ARGV_CHARS_MAX}"),
        ({"values": ("a", "b"), "skipped": ((1, 9), (0, 1))}, "all tasks are skipped"),
        ({"halt": "whenever"}, "halt"),
        ({"words": ("x",) * ((1 << 18) + 1)}, "262144 words"),
        ({"environment": bytes((4 << 20) + 1)}, "an environment of 4 MiB"),
        ({"words": ("x" * 60_000,) * 40, "shell": False}, "longer than"),
    ],
)
async def test_what_cannot_be_run_is_refused_and_leaves_nothing(rig, fields, words):
    values = fields.pop("values", ())
    with pytest.raises(UsageError, match=words):
        await submit(rig, "echo", values=values, **fields)
    assert rig.posted == []
    assert rig.store.live_jobs() == ()


async def test_none_is_taken_while_the_node_changes_its_mesh(rig):
    with rig.jobs.held("joining"), pytest.raises(RefusedError, match="try again"):
        await submit(rig, "true")


async def test_a_disk_that_fails_lets_go_of_what_was_packed(rig, monkeypatch):
    class DiskError(Exception):
        pass

    async def fail(_event):
        raise DiskError

    held, let_go = [], []
    monkeypatch.setattr(rig.blobs, "add", lambda _blob, _ciphertext, pin: held.append(pin))
    monkeypatch.setattr(rig.blobs, "unpin", let_go.append)
    rig.post_durable = fail
    with pytest.raises(DiskError):
        await submit(rig, "true")
    assert held
    assert let_go == held


async def test_what_they_leave_is_not_written_out_anywhere(rig):
    view = await submit(rig, "echo", "a")
    job = id_of(rig, view)
    await rig.settle(job, printed="a\n")
    with pytest.raises(RefusedError, match="p2pq logs"):
        await rig.ask(rig.jobs.results, Results(job=view.job))
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    [event] = (await rig.event()).events
    assert (type(event), event.job, event.task) == (Delivered, job, 0)
    [task] = await rig.ask(rig.jobs.tasks, control.Tasks(job=view.job))
    assert task.results is None


async def test_tasks_that_ran_before_are_not_run(rig):
    view = await submit(rig, "echo", values=("a", "b", "c"), skipped=((2, 7), (0, 1)))
    assert rig.posted[-1].kept == ((0, 1), (2, 3))
    assert (view.tasks.done, view.tasks.pending, view.kept) == (2, 1, 2)
    tasks = await rig.ask(rig.jobs.tasks, control.Tasks(job=view.job))
    assert [task.state for task in tasks] == ["done", "pending", "done"]
