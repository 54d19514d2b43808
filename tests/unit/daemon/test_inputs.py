"""What a job brings along, before it is unpacked. How a worker declines what is too large: test_guests.py."""

import os

import pytest

from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.inputs import entries, open_job
from p2pq.errors import DiskFullError, RefusedError, Reject
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.params import Axis
from p2pq.model.sources import Source
from p2pq.wire import body as bodies
from p2pq.wire.body import CommandsBody, JobBody
from p2pq.wire.tree import PLAIN_MAX, Directory, File, Link, Part, Tree, seal_chunk
from tests.unit.daemon.guestkit import start_of

CHUNK, _ = seal_chunk(bytes(PLAIN_MAX), lambda _: b"k" * 32)
TREE = Tree(files=(File("zeros", False, 2 * PLAIN_MAX, (Part(0, 0, PLAIN_MAX),) * 2),), chunks=(CHUNK,))


def started(tmp_path, tree, body=None, **fields):
    blobs = BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
    key = os.urandom(32)
    refs, parts = bodies.encrypt(key, body or JobBody(main="main.py", kind="python", tree=tree))
    for ref, part in zip(refs, parts, strict=True):
        blobs.put(ref.blob, part)
    plain = {"master": NodeId(b"a" * 32), "lease": LeaseId(1, 1), "job": JobId(b"j" * 16), "key": key, "body": refs}
    return start_of(**(plain | fields)), blobs


def test_a_job_opens_if_its_files_fit(tmp_path):
    start, blobs = started(tmp_path, TREE)
    assert open_job(start, blobs, 2 * PLAIN_MAX).tree == TREE
    with pytest.raises(DiskFullError, match="larger than the 8 MiB that a task may hold here"):
        open_job(start, blobs, 2 * PLAIN_MAX - 1)


def test_a_job_that_is_none_is_refused(tmp_path):
    start, blobs = started(tmp_path, Tree(files=(File("../x", False, 0, ()),)))
    with pytest.raises(Reject):
        open_job(start, blobs, 1 << 30)


def test_what_a_body_names_is_counted():
    tree = Tree(files=TREE.files, chunks=TREE.chunks, dirs=(Directory("d"),), links=(Link("l", "d"),))
    job = JobBody(main="m", kind="shell", tree=tree, args=("x" * 600,), axes=(Axis("k", ("1", "2")),))
    assert entries(JobBody(main="m", kind="shell", tree=Tree())) == 1
    assert entries(job) == 1 + 4 + 2 + 3 + 2


@pytest.mark.parametrize(
    ("own", "sandbox", "opens"), [(True, "none", True), (True, "strict", False), (False, "none", False)]
)
def test_commands_for_a_users_own_folder_run_for_that_user_only(tmp_path, own, sandbox, opens):
    commands = CommandsBody(words=("rm", "-r", "."), cwd="/home/bob", shell=False)
    start, blobs = started(tmp_path, None, commands, own=own, sandbox=sandbox)
    if opens:
        assert open_job(start, blobs, 1 << 30) == commands
    else:
        with pytest.raises(RefusedError, match="on that user's machine only"):
            open_job(start, blobs, 1 << 30)


def test_commands_take_memory_for_their_values_and_their_environment():
    small = CommandsBody(words=("true",), cwd="/")
    large = CommandsBody(
        words=("true",), cwd="/", sources=(Source(tuple(map(str, range(1000)))),), environment=bytes(256_000)
    )
    assert entries(small) == 1
    assert 500 < entries(large) < 1000
