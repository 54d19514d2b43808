"""Notices are values that can be written down and read again."""

import typing

import msgspec
import pytest

from p2pq.model import notice
from p2pq.model.ids import LeaseId

KINDS = typing.get_args(notice.Notice)


def test_every_notice_belongs_to_the_union():
    defined = {
        value
        for value in vars(notice).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == notice.__name__
    }
    assert {kind for kind in defined if not kind.__name__.startswith("_")} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_notice_is_tagged_by_its_own_name_and_cannot_change(kind):
    assert kind.__struct_config__.tag == kind.__name__
    assert kind.__struct_config__.frozen
    assert kind.__doc__


def test_a_notice_survives_being_written_down():
    said = notice.LeaseExpired(lease=LeaseId(1, 2), worker=b"w" * 32, held_s=60.5)
    raw = msgspec.msgpack.encode(said)
    assert msgspec.msgpack.decode(raw, type=notice.Notice) == said
