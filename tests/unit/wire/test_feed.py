"""Standard input of a job's tasks, in one stream."""

import pytest

from p2pq.errors import Reject
from p2pq.wire import feed
from p2pq.wire.feed import Feed
from p2pq.wire.objects import BlobRef
from p2pq.wire.tree import Chunk


def chunk(number, length):
    return Chunk(bytes([number]) * 32, b"k" * 32, length + 16, length, packed=False)


A, B, C = chunk(1, 5), chunk(2, 1), chunk(3, 4)


@pytest.mark.parametrize(
    ("task", "found"),
    [
        (0, [(A, 0, 2)]),
        (1, []),
        (2, [(A, 2, 5), (B, 0, 1), (C, 0, 1)]),
        (3, [(C, 1, 4)]),
        (4, []),
    ],
)
def test_each_task_has_its_part(task, found):
    assert list(feed.parts(Feed((2, 0, 5, 3, 0), (A, B, C)), task)) == found


def test_a_stream_is_read_to_its_end_by_as_many_tasks_as_there_are():
    whole = Feed((2, 8), (A, B, C))
    feed.check(whole, 2)
    with pytest.raises(Reject, match="for 2 tasks, and there are 3"):
        feed.check(whole, 3)
    for sizes in ((2, 7), (2, 9)):
        with pytest.raises(Reject, match="not what was sent"):
            feed.check(Feed(sizes, (A, B, C)), 2)


def test_a_blob_that_comes_twice_is_named_once():
    assert feed.refs(Feed((11,), (A, B, A))) == (BlobRef(A.blob, A.size), BlobRef(B.blob, B.size))
