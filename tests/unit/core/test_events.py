"""Events can be written down and fed again: the flight record of a node depends on it."""

import msgspec
import pytest

from p2pq.core import events
from p2pq.core.events import Event
from tests.samples import fullest, smallest, unions

KINDS = unions(Event)


def test_every_event_belongs_to_the_union():
    defined = {
        value
        for value in vars(events).values()
        if isinstance(value, type)
        and issubclass(value, events._Event)
        and value not in (events._Event, events.TrustAsked)
    }
    assert defined == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("make", [smallest, fullest])
def test_an_event_reads_as_it_was_written(kind, make):
    event = make(kind)
    raw = msgspec.msgpack.encode(event)
    assert msgspec.msgpack.decode(raw, type=Event) == event


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_cannot_change(kind):
    event = smallest(kind)
    with pytest.raises(AttributeError, match="immutable"):
        setattr(event, kind.__struct_fields__[0], None)
