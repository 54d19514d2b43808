"""Bodies of jobs and results: encrypted in parts, checked when opened."""

import msgspec
import pytest

from p2pq.errors import Reject
from p2pq.model.ids import LeaseId
from p2pq.model.params import Axis, Range
from p2pq.model.sources import Source
from p2pq.wire import body, prims, seal
from p2pq.wire.feed import Feed
from p2pq.wire.objects import BlobRef
from p2pq.wire.tree import Chunk, Directory, File, Link, Part, Tree

KEY = b"k" * 32
JOB = body.JobBody(
    name="pi",
    main="main.py",
    kind="python",
    args=("--n", "{n}"),
    axes=(Axis("n", ("1", "2")),),
    array=(Range(0, 9),),
    tree=Tree(files=(File("main.py", False, 0, ()),)),
)
RESULT = body.ResultBody(tree=Tree(), output=Tree(files=(File("stdout", False, 0, ()),)), detail="done")


def _store(blobs):
    return {prims.blob_id(blob): blob for blob in blobs}


@pytest.mark.parametrize("value", [JOB, RESULT])
def test_what_is_encrypted_comes_back(value):
    refs, blobs = body.encrypt(KEY, value)
    assert [ref.size for ref in refs] == [len(blob) for blob in blobs]
    assert body.decrypt(KEY, refs, _store(blobs), type(value)) == value


def test_a_long_body_travels_in_parts(monkeypatch):
    monkeypatch.setattr(body, "PART_BYTES", 50)
    monkeypatch.setattr(body, "BODY_BYTES_MAX", 50 * 64)
    refs, blobs = body.encrypt(KEY, JOB)
    assert len(refs) > 1
    assert body.decrypt(KEY, refs, _store(blobs), body.JobBody) == JOB
    with pytest.raises(Reject):
        body.decrypt(KEY, (refs[1], refs[0], *refs[2:]), _store(blobs), body.JobBody)


def test_a_body_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(body, "BODY_BYTES_MAX", 10)
    with pytest.raises(Reject, match="too large"):
        body.encrypt(KEY, JOB)


def test_missing_swapped_or_resized_parts_are_refused():
    refs, blobs = body.encrypt(KEY, JOB)
    store = _store(blobs)
    with pytest.raises(Reject, match="missing"):
        body.decrypt(KEY, refs, {}, body.JobBody)
    with pytest.raises(Reject, match="name"):
        body.decrypt(KEY, refs, {refs[0].blob: b"x" * refs[0].size}, body.JobBody)
    with pytest.raises(Reject, match="name"):
        body.decrypt(KEY, (BlobRef(refs[0].blob, 1),), store, body.JobBody)
    with pytest.raises(Reject):
        body.decrypt(b"o" * 32, refs, store, body.JobBody)
    with pytest.raises(Reject):
        body.decrypt(KEY, refs, store, body.ResultBody)


@pytest.mark.parametrize(
    "value",
    [
        body.JobBody(main="m", kind="command", tree=Tree(files=(File("../m", False, 0, ()),))),
        body.ResultBody(tree=Tree(), output=Tree(files=tuple(File(name, False, 0, ()) for name in "abc"))),
    ],
)
def test_a_hostile_tree_inside_is_refused(value):
    refs, blobs = body.encrypt(KEY, value)
    with pytest.raises(Reject):
        body.decrypt(KEY, refs, _store(blobs), type(value))


def test_a_result_key_is_bound_to_one_attempt():
    contexts = {
        body.result_context(job, task, attempt, LeaseId(1, counter))
        for job in (b"a" * 16, b"b" * 16)
        for task in (0, 1)
        for attempt in (1, 2)
        for counter in (0, 1)
    }
    assert len(contexts) == 16


def test_the_blobs_of_a_tree_are_listed_once():
    chunk = Chunk(b"b" * 32, b"k" * 32, 26, 10, False)
    folder = Tree(files=(File("a", False, 10, (Part(0, 0, 10),)),), chunks=(chunk, chunk))
    assert body.tree_refs(folder) == (BlobRef(b"b" * 32, 26),)


def test_bodies_are_bound_to_their_part_number():
    refs, blobs = body.encrypt(KEY, RESULT)
    assert len(refs) == 1
    with pytest.raises(Reject):
        seal.decrypt_body(KEY, blobs[0], b"another place")


def test_a_checkpoint_key_is_bound_to_one_attempt():
    contexts = {
        body.checkpoint_context(b"j" * 16, 1, LeaseId(1, 2)),
        body.checkpoint_context(b"k" * 16, 1, LeaseId(1, 2)),
        body.checkpoint_context(b"j" * 16, 2, LeaseId(1, 2)),
        body.checkpoint_context(b"j" * 16, 1, LeaseId(1, 3)),
        body.result_context(b"j" * 16, 1, 1, LeaseId(1, 2)),
    }
    assert len(contexts) == 5


@pytest.mark.parametrize(
    ("results", "has"),
    [
        (Tree(), False),
        (Tree(files=(File("out", False, 0, ()), File("sub/.checkpoint/x", False, 0, ()))), False),
        (Tree(files=(File(".checkpoint", False, 0, ()),)), False),
        (Tree(dirs=(Directory(".checkpoint"),)), False),
        (Tree(files=(File(".checkpoints/x", False, 0, ()),)), False),
        (Tree(files=(File(".checkpoint/x", False, 0, ()),)), True),
        (Tree(dirs=(Directory(".checkpoint/x"),)), True),
        (Tree(links=(Link(".checkpoint/x", "y"),)), True),
    ],
)
def test_what_a_checkpoint_is(results, has):
    assert body.has_checkpoint(results) is has


def test_what_belongs_to_a_checkpoint():
    paths = (".checkpoint", ".checkpoint/a", ".checkpoints/a", "a/.checkpoint/a")
    assert [path for path in paths if body.in_checkpoint(path)] == [".checkpoint", ".checkpoint/a"]


COMMANDS = body.CommandsBody(
    name="echo", words=("echo", "{}"), sources=(Source(("a", "b")),), cwd="/work", environment=b"A=1\0"
)


CHUNK = Chunk(b"b" * 32, b"k" * 32, 17, 1, packed=False)
FED = msgspec.structs.replace(COMMANDS, stdin=Feed((1, 0), (CHUNK,)))


@pytest.mark.parametrize(("job", "blobs"), [(JOB, None), (COMMANDS, ()), (FED, (BlobRef(CHUNK.blob, 17),))])
def test_what_a_job_brings_along(job, blobs):
    assert body.brought(job) == (body.tree_refs(job.tree) if blobs is None else blobs)


HOOKED = [msgspec.structs.replace(job, begin="export A=1", end="rm x") for job in (JOB, COMMANDS)]


@pytest.mark.parametrize("job", [JOB, COMMANDS])
def test_a_body_without_hooks_is_what_older_nodes_read(job):
    names = msgspec.msgpack.decode(msgspec.msgpack.encode(job)).keys()
    assert not names & {"begin", "end"}


@pytest.mark.parametrize("job", [JOB, COMMANDS, FED, *HOOKED])
def test_the_body_of_a_job_comes_back_whatever_kind_of_job_it_is(job):
    refs, blobs = body.encrypt(KEY, job)
    assert body.decrypt_job(KEY, refs, _store(blobs)) == job


def test_a_result_is_no_job_and_a_tree_that_is_none_no_tree():
    result = body.ResultBody(tree=Tree(), output=Tree())
    bad = body.JobBody(main="m", kind="command", tree=Tree(files=(File("../m", False, 0, ()),)))
    for each in (result, bad):
        refs, blobs = body.encrypt(KEY, each)
        with pytest.raises(Reject):
            body.decrypt_job(KEY, refs, _store(blobs))
