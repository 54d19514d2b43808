"""Blobs on disk: verified, bounded, pinned, durable when asked."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from p2pq.daemon import blobstore
from p2pq.daemon.blobstore import BlobMissingError, BlobReader, BlobStore
from p2pq.errors import DiskFullError, Reject, StorageError
from p2pq.model.ids import to_text
from p2pq.wire import prims
from p2pq.wire.tree import CHUNK

QUOTA = 1000


def blob_of(data: bytes) -> bytes:
    return prims.blob_id(data)


def data_of(number: int, size: int = 100) -> bytes:
    return bytes([number]) * size


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs", quota_bytes=QUOTA, reserve_bytes=0)


def put(store, number, size=100, **options):
    data = data_of(number, size)
    store.put(blob_of(data), data, **options)
    return blob_of(data)


def reopened(tmp_path, quota=QUOTA):
    return BlobStore(tmp_path / "blobs", quota_bytes=quota, reserve_bytes=0)


def test_what_is_put_comes_back(store, tmp_path):
    blob = put(store, 1)
    assert store.has(blob)
    assert store.get(blob) == data_of(1)
    name = to_text(blob)
    assert store.path(blob) == tmp_path / "blobs" / name[:2] / name
    assert (store.used_bytes, len(store)) == (100, 1)
    assert (store.size(blob), store.size(bytes(32))) == (100, 0)
    store.pin("job", [blob])
    assert store.size(blob) == 100
    assert store.path(blob).stat().st_mode & 0o777 == 0o600


def test_the_same_blob_counts_once(store):
    put(store, 1)
    put(store, 1)
    assert (store.used_bytes, len(store)) == (100, 1)


@pytest.mark.parametrize("data", [b"other", b"", bytes(CHUNK + 1)])
def test_bytes_that_do_not_match_their_name_are_refused(store, data):
    name = blob_of(data) if len(data) > CHUNK else blob_of(b"x")
    with pytest.raises(Reject, match="does not match"):
        store.put(name, data)
    assert len(store) == 0
    assert store.used_bytes == 0


def test_missing_blob(store):
    for ask in (store.get, store.path):
        with pytest.raises(BlobMissingError):
            ask(bytes(32))
    assert not store.has(bytes(32))


def test_least_recently_used_goes_first(store):
    blobs = [put(store, number) for number in range(10)]
    assert store.get(blobs[0])
    store.path(blobs[1])
    put(store, 2)  # putting again is using
    put(store, 10, 300)
    assert [store.has(blob) for blob in blobs] == [True] * 3 + [False] * 3 + [True] * 4
    assert store.used_bytes == QUOTA


def test_pinned_blobs_stay(store):
    blobs = [put(store, number) for number in range(10)]
    store.pin("job", blobs[:9])
    put(store, 10)
    assert not store.has(blobs[9])
    assert all(map(store.has, blobs[:9]))
    store.pin("other", [blob_of(data_of(10))])
    with pytest.raises(DiskFullError, match="blobs_mb"):
        put(store, 11)
    assert store.used_bytes == QUOTA
    assert store.get(blobs[0]) == data_of(0)


def test_pins_count_per_tag(store):
    blob = put(store, 1)
    store.pin("a", [blob, blob])
    store.pin("a", [blob])
    store.pin("b", [blob])
    store.unpin("a")
    store.unpin("a")
    store.unpin("nobody")
    put(store, 2, 900)
    assert store.has(blob)
    store.unpin("b")
    put(store, 3, 1000)
    assert not store.has(blob)


def test_blobs_may_be_pinned_before_they_come(store):
    blob = blob_of(data_of(1))
    store.pin("job", [blob])
    put(store, 1)
    put(store, 2, 900)
    assert store.has(blob)
    store.unpin("job")
    put(store, 3, 1000)
    assert not store.has(blob)


def test_put_pins_at_once(store):
    blob = put(store, 1, pin="job")
    put(store, 2, 900)
    with pytest.raises(DiskFullError):
        put(store, 3, 950)
    assert store.has(blob)


def test_unpinning_what_never_came(store):
    store.pin("job", [bytes(32)])
    store.unpin("job")
    assert len(store) == 0


def test_discard_spares_the_pinned(store):
    first, second = put(store, 1), put(store, 2, pin="job")
    store.discard([first, second, bytes(32)])
    assert (store.has(first), store.has(second)) == (False, True)
    assert store.used_bytes == 100


def test_blobs_and_order_of_use_survive_a_restart(store, tmp_path):
    blobs = [put(store, number) for number in range(10)]
    for age, blob in enumerate(reversed(blobs)):
        os.utime(store.path(blob), (1000, 1000 + age))
    again = reopened(tmp_path)
    assert (again.used_bytes, len(again)) == (1000, 10)
    assert again.get(blobs[9]) == data_of(9)  # the oldest, but just used
    put(again, 10)
    assert not again.has(blobs[8])
    assert again.has(blobs[9])
    assert reopened(tmp_path).get(blobs[9]) == data_of(9)


def test_a_lower_quota_counts_from_the_next_blob_on(store, tmp_path):
    for number in range(10):
        put(store, number)
    again = reopened(tmp_path, quota=300)
    put(again, 10)
    assert again.used_bytes == 300


@pytest.mark.parametrize("ask", ["get", "path"])
def test_damage_of_an_earlier_run_is_found(store, tmp_path, ask):
    blob = put(store, 1)
    store.path(blob).write_bytes(b"garbage")
    again = reopened(tmp_path)
    assert again.has(blob)
    with pytest.raises(BlobMissingError, match="damaged"):
        getattr(again, ask)(blob)
    assert not again.has(blob)
    assert again.used_bytes == 0
    put(again, 1)
    assert again.get(blob) == data_of(1)


def test_path_of_a_sound_blob_of_an_earlier_run(store, tmp_path):
    blob = put(store, 1)
    again = reopened(tmp_path)
    assert again.path(blob).read_bytes() == data_of(1)
    assert again.path(blob).read_bytes() == data_of(1)


def test_leftovers_are_forgotten(store, tmp_path):
    blob = put(store, 1)
    store.path(blob).write_bytes(b"")
    (tmp_path / "blobs/tmp/7").write_bytes(b"half")
    (tmp_path / "blobs/aa").mkdir(exist_ok=True)
    (tmp_path / "blobs/aa/README").write_bytes(b"not ours")
    again = reopened(tmp_path)
    assert len(again) == 0
    assert not (tmp_path / "blobs/tmp/7").exists()
    assert (tmp_path / "blobs/aa/README").exists()


def test_a_blob_that_someone_deleted(store):
    blob = put(store, 1, pin="job")
    store.path(blob).unlink()
    with pytest.raises(BlobMissingError):
        store.get(blob)
    assert not store.has(blob)
    assert store.used_bytes == 0


def test_a_blob_that_cannot_be_read(store, monkeypatch):
    blob = put(store, 1)

    def broken(_path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(blobstore.Path, "read_bytes", broken)
    with pytest.raises(StorageError, match="Input/output error"):
        store.get(blob)
    assert store.has(blob)


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "blobs").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be used"):
        BlobStore(tmp_path / "blobs", quota_bytes=1, reserve_bytes=0)


class Disk(NamedTuple):
    f_blocks: int
    f_frsize: int
    f_bavail: int


def test_reserve_of_free_disk(tmp_path, monkeypatch):
    disk = {"free": 1000}
    monkeypatch.setattr(blobstore.os, "statvfs", lambda _: Disk(4000, 1, disk["free"]))
    store = BlobStore(tmp_path / "blobs", quota_bytes=10**9, reserve_bytes=500)
    blob = put(store, 1, 500)
    disk["free"] = 500
    with pytest.raises(DiskFullError, match="reserve_mb"):
        put(store, 2)  # even without the first one
    assert not store.has(blob)
    share = BlobStore(tmp_path / "share", quota_bytes=10**9, reserve_bytes=1)
    disk["free"] = 299
    with pytest.raises(DiskFullError):
        put(share, 1)
    disk["free"] = 300
    put(share, 1)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, StorageError)],
)
def test_disk_that_fails_while_writing(store, tmp_path, monkeypatch, code, kind):
    real = os.write
    broken = True

    def write(descriptor, data):
        if broken:
            raise OSError(code, os.strerror(code))
        return real(descriptor, data[:7])  # short writes go on

    monkeypatch.setattr(blobstore.os, "write", write)
    with pytest.raises(kind) as caught:
        put(store, 1)
    assert type(caught.value) is kind
    assert store.used_bytes == 0
    assert list((tmp_path / "blobs/tmp").iterdir()) == []
    broken = False
    assert store.get(put(store, 1)) == data_of(1)


def test_sync_reaches_files_and_folders(store, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(blobstore.os, "fsync", fsync)
    first, second = put(store, 1), put(store, 2)
    store.sync([first, bytes(32)])
    path = store.path(first)
    assert synced == [str(path), str(path.parent), str(path.parent.parent)]
    synced.clear()
    store.sync()
    assert synced[0] == str(store.path(second))
    synced.clear()
    store.sync()
    store.sync([first])
    assert synced == []


def test_the_store_s_own_folder_is_synced_where_a_folder_in_it_is_new(store, tmp_path, monkeypatch):
    """What an earlier run made may not be on the disk yet: it may have ended before it synced anything."""
    numbers: dict[str, list[int]] = {}
    for number in range(256):
        numbers.setdefault(to_text(blob_of(data_of(number)))[:2], []).append(number)
    first, second, third = next(same for same in numbers.values() if len(same) > 2)[:3]
    synced = []
    monkeypatch.setattr(blobstore.files, "sync", lambda path: synced.append(path.name))
    put(store, first)
    store.sync()
    put(store, second)
    store.sync()
    inner = store.path(blob_of(data_of(first))).parent.name
    assert synced == [inner, "blobs", inner]
    again = reopened(tmp_path)
    put(again, third)
    again.sync()
    assert synced[3:] == [inner, "blobs"]


def many(store, count=blobstore.TOGETHER_MIN):
    datas = [os.urandom(8) for _ in range(count)]
    for data in datas:
        store.put(blob_of(data), data)
    return list(map(blob_of, datas))


def test_many_blobs_are_synced_together_unless_that_takes_long(tmp_path, monkeypatch):
    store = BlobStore(tmp_path / "blobs", quota_bytes=1 << 20, reserve_bytes=0)
    together, apart, now, takes_s = [], [], 100.0, 0.0

    def sync_file_system(path):
        nonlocal now
        now += takes_s
        together.append(path)
        return True

    monkeypatch.setattr(blobstore.files, "sync_file_system", sync_file_system)
    monkeypatch.setattr(blobstore.files, "sync_all", apart.append)
    monkeypatch.setattr(blobstore.time, "monotonic", lambda: now)
    many(store)
    store.sync()
    assert (together, apart, store._dirty, store._unsynced) == ([store._disk], [], {}, set())
    many(store, blobstore.TOGETHER_MIN - 1)
    store.sync()
    assert (len(together), len(apart)) == (1, 1), "few of them need not take what others write with them"
    takes_s = 1.0
    many(store)
    store.sync()
    many(store)
    store.sync()
    assert (len(together), len(apart)) == (2, 2), "the last time was too long"
    now += blobstore.APART_TIMES * takes_s
    many(store)
    store.sync()
    assert len(together) == 3


def test_where_a_file_system_cannot_be_synced_as_a_whole_each_blob_is(tmp_path, monkeypatch):
    store = BlobStore(tmp_path / "blobs", quota_bytes=1 << 20, reserve_bytes=0)
    apart = []
    monkeypatch.setattr(blobstore.files, "sync_file_system", lambda _: False)
    monkeypatch.setattr(blobstore.files, "sync_all", apart.extend)
    many(store)
    store.sync()
    assert len(apart) == blobstore.TOGETHER_MIN


@pytest.mark.parametrize("lost", [False, True])
def test_where_something_on_the_disk_could_not_be_written_each_blob_tells_of_itself(tmp_path, monkeypatch, lost):
    """The kernel says it once, of all that was written, also by others."""
    store = BlobStore(tmp_path / "blobs", quota_bytes=1 << 20, reserve_bytes=0)
    together, apart = [], []

    def sync_file_system(descriptor):
        together.append(descriptor)
        if len(together) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return True

    def sync_all(paths):
        apart.append(len(paths))
        if lost:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(blobstore.files, "sync_file_system", sync_file_system)
    monkeypatch.setattr(blobstore.files, "sync_all", sync_all)
    mine, others = many(store), many(store)
    for blobs in (mine, others):
        with pytest.raises(StorageError, match="Input/output error") if lost else nullcontext():
            store.sync(blobs)
        assert [store.has(blob) for blob in blobs] == [not lost] * len(blobs)
    assert (len(together), apart) == (1, [len(mine), len(others)])
    store.sync(many(store))
    assert (len(together), store._suspects, store._dirty) == (2, set(), {})


def test_the_file_system_is_synced_by_what_was_opened_before_anything_was_written(tmp_path, monkeypatch):
    """One that is opened later is not told of what could not be written before."""
    store = BlobStore(tmp_path / "blobs", quota_bytes=1 << 20, reserve_bytes=0)
    disk, seen = store._disk, []
    monkeypatch.setattr(blobstore.files, "sync_file_system", lambda descriptor: seen.append(descriptor) or True)
    many(store)
    store.sync()
    assert seen == [disk]
    assert os.path.samestat(os.fstat(disk), (tmp_path / "blobs").stat())
    monkeypatch.undo()
    store.close()
    store.sync(many(store))  # it is never too late
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(disk)


def test_a_full_disk_is_relieved_where_that_is_enough(tmp_path, monkeypatch):
    store = reopened(tmp_path)
    held, old, new = put(store, 1, pin="job"), put(store, 2), put(store, 3)
    monkeypatch.setattr(blobstore.files, "free_bytes", lambda _: 1000 - store.used_bytes)
    store.relieve(700)
    assert store.has(old)
    store.relieve(901)
    assert store.has(old), "it would have been in vain"
    store.relieve(750)
    assert [store.has(blob) for blob in (held, old, new)] == [True, False, True]


def test_sync_of_what_was_evicted(store):
    blob = put(store, 1)
    store.path(blob).unlink()
    store.sync()


def test_failed_sync_forgets_what_it_could_not_keep(store, monkeypatch):
    """After a failed fsync the kernel may say that all is well the next time."""
    blob = put(store, 1, pin="job")

    def broken(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(blobstore.os, "fsync", broken)
        with pytest.raises(StorageError, match="Input/output error"):
            store.sync()
    assert not store.has(blob)
    store.sync()


def test_threads_may_share_a_store(tmp_path):
    store = BlobStore(tmp_path / "blobs", quota_bytes=50_000, reserve_bytes=0)

    def work(_thread):
        for number in range(200):
            data = data_of(number % 100, 1000)
            store.put(blob_of(data), data)
            with suppress(BlobMissingError):  # evicted by another thread
                assert store.get(blob_of(data)) == data

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    files = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert store.used_bytes == sum(path.stat().st_size for path in files) == len(store) * 1000
    assert store.used_bytes <= 50_000


def test_blobs_are_read_to_see_whether_they_are_whole(store, monkeypatch):
    """Also those that were whole when they were first used."""
    whole, gone, rotten, pinned = (put(store, number) for number in range(1, 5))
    store.pin("job", [pinned])
    store._path(gone).unlink()
    for blob in (rotten, pinned):
        store._path(blob).write_bytes(b"rotten")
    assert store.verify([whole, gone, rotten, pinned, bytes(32)]) == [gone, rotten, pinned, bytes(32)]
    assert [store.has(blob) for blob in (whole, gone, rotten, pinned)] == [True, False, False, False]
    assert store.used_bytes == 100

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(StorageError, match="Input/output"):
        store.verify([whole])
    assert store.has(whole)


def test_a_reader_changes_nothing_and_believes_nothing(store, tmp_path):
    blob, other = put(store, 1), put(store, 2)
    reader = BlobReader(tmp_path / "blobs")
    assert reader.get(blob) == data_of(1)
    store.path(blob).write_bytes(data_of(3))
    for name in (blob, blob_of(b"never here")):
        with pytest.raises(BlobMissingError):
            reader.get(name)
    path = store.path(other)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        reader.get(other)
    assert path.parent.is_dir()
