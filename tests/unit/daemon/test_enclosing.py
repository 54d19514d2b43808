"""Which blobs travel inside the message that names them."""

import os

import msgspec
import pytest

from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.enclosing import ENCLOSED_BYTES_MAX, enclose
from p2pq.wire import prims, sign
from p2pq.wire.messages import INLINE_BYTES_MAX, Granted, Heartbeat, ResultReady, Through
from p2pq.wire.objects import BlobRef, Result
from tests.unit.core.workerkit import ANN, ME, item, manifest, result_item


class Shelf:
    """A store of blobs, and messages of a node that name them."""

    def __init__(self, folder) -> None:
        self.store = BlobStore(folder, quota_bytes=1 << 30, reserve_bytes=0)

    def blob(self, size: int) -> BlobRef:
        data = os.urandom(size)
        name = prims.blob_id(data)
        self.store.add(name, data)
        return BlobRef(name, size)

    def ready(self, *bodies: tuple[BlobRef, ...]) -> ResultReady:
        items = [result_item(item(number), body=refs[:1], blobs=refs[1:]) for number, refs in enumerate(bodies)]
        result = Result(mesh=bytes(32), node=ANN.node, by=ME.node, items=tuple(items))
        return ResultReady(result=sign.sign(ME.signer, result))

    def granted(self, *refs: BlobRef, known: bool = False) -> Granted:
        raw = sign.sign(ME.signer, msgspec.structs.replace(manifest(ME), body=refs[:1], blobs=refs[1:]))
        return Granted(grant=b"signed", manifest=b"" if known else raw)

    def enclosed(self, message, *, direct: bool = True) -> list[bytes]:
        given = enclose(message, self.store, direct=direct)
        assert msgspec.structs.replace(given, blobs=()) == message
        return [prims.blob_id(blob) for blob in given.blobs]


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path)


def test_small_blobs_of_a_new_result_are_enclosed_each_once(shelf: Shelf) -> None:
    one, two, large = shelf.blob(1), shelf.blob(ENCLOSED_BYTES_MAX), shelf.blob(ENCLOSED_BYTES_MAX + 1)
    ready = shelf.ready((one, two, large, one))
    assert shelf.enclosed(ready) == [one.blob, two.blob]
    assert shelf.enclosed(ready, direct=False) == [one.blob, two.blob]


def test_results_that_waited_for_their_master_are_fetched(shelf: Shelf) -> None:
    assert shelf.enclosed(shelf.ready((shelf.blob(1),), (shelf.blob(2),))) == []


def test_the_inputs_of_a_job_are_enclosed_the_first_time_that_a_direct_link_carries_it(shelf: Shelf) -> None:
    body, file = shelf.blob(10), shelf.blob(20)
    assert shelf.enclosed(shelf.granted(body, file)) == [body.blob, file.blob]
    assert shelf.enclosed(shelf.granted(body, file, known=True)) == []
    assert shelf.enclosed(shelf.granted(body, file), direct=False) == []


def test_what_goes_through_a_bridge_brings_results_along_and_no_inputs(shelf: Shelf) -> None:
    small = shelf.blob(10)
    ready, granted = shelf.ready((small,)), shelf.granted(small)
    given = enclose(Through(node=ANN.node, message=ready), shelf.store, direct=True)
    assert given == Through(node=ANN.node, message=enclose(ready, shelf.store, direct=True))
    assert given.message.blobs
    through = Through(node=ANN.node, message=granted)
    assert enclose(through, shelf.store, direct=True) == through


def test_the_sum_and_the_number_are_bounded(shelf: Shelf) -> None:
    halves = [shelf.blob(ENCLOSED_BYTES_MAX - 1) for _ in range(INLINE_BYTES_MAX // ENCLOSED_BYTES_MAX)]
    few = shelf.blob(INLINE_BYTES_MAX // ENCLOSED_BYTES_MAX)
    more = shelf.blob(1)
    assert shelf.enclosed(shelf.ready((*halves, shelf.blob(100), few, more))) == [ref.blob for ref in (*halves, few)]
    many = [shelf.blob(16) for _ in range(70)]  # of two bytes some would be the same
    assert shelf.enclosed(shelf.granted(*many)) == [ref.blob for ref in many[:64]]


def test_what_is_not_there_is_left_out_and_fetched_in_vain(shelf: Shelf) -> None:
    here = shelf.blob(5)
    assert shelf.enclosed(shelf.ready((BlobRef(b"n" * 32, 5), here))) == [here.blob]


def test_other_messages_are_left_alone(shelf: Shelf) -> None:
    beat = Heartbeat(beats=())
    assert enclose(beat, shelf.store, direct=True) is beat
