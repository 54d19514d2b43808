"""Ids: what people read and type is exactly one id or refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pq.errors import Reject
from p2pq.model.ids import JOB_ID_BYTES, NODE_ID_BYTES, LeaseId, TaskKey, from_text, short, to_text


@given(st.binary(min_size=1, max_size=40))
def test_text_comes_back_as_the_same_bytes(raw):
    assert from_text(to_text(raw), len(raw)) == raw


def test_text_is_lower_case_without_padding_and_short_is_its_beginning():
    raw = bytes(range(16))
    assert to_text(raw) == "aaaqeayeaudaocajbifqydiob4"
    assert short(raw) == "aaaqeaye"


def test_people_may_group_and_shout():
    raw = bytes(range(16))
    assert from_text("AAAQEAY-EAUDAOC AJBIFQYDIOB4", JOB_ID_BYTES) == raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "aaaqeayeaudaocajbifqydiob",  # one character short
        "aaaqeayeaudaocajbifqydiob4a",  # one too many
        "aaaqeayeaudaocajbifqydiob5",  # the same bytes by another text: bits that say nothing are set
        "aaaqeayeaudaocajbifqydiob1",  # 1 is no digit of base32
        "aaaqeayeaudaocajbifqydiobé",
        "=" * 26,
        "aaaqeayeaudaocajbifqydiob4======",
    ],
)
def test_what_is_no_id_is_refused(text):
    with pytest.raises(Reject, match=r"^not an id$"):
        from_text(text, JOB_ID_BYTES)


def test_an_id_of_another_kind_is_refused():
    with pytest.raises(Reject):
        from_text(to_text(bytes(JOB_ID_BYTES)), NODE_ID_BYTES)


def test_lease_ids_order_by_epoch_first_and_read_so():
    assert sorted([LeaseId(2, 1), LeaseId(1, 9), LeaseId(1, 2)]) == [LeaseId(1, 2), LeaseId(1, 9), LeaseId(2, 1)]
    assert str(LeaseId(2, 17)) == "2.17"


def test_ids_travel_as_arrays_and_serve_as_keys():
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(LeaseId(3, 4))) == [3, 4]
    assert {TaskKey(b"j", 1): "a"}[TaskKey(b"j", 1)] == "a"
