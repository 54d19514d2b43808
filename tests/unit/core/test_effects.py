"""Effects are values: they compare, cannot change, and can be written down beside the events that caused them."""

import msgspec
import pytest

from p2pq.core import effects
from p2pq.core.effects import Effect
from tests.samples import fullest, smallest, unions

KINDS = unions(Effect)


def test_every_effect_belongs_to_the_union():
    defined = {
        value
        for value in vars(effects).values()
        if isinstance(value, type) and issubclass(value, effects._Effect) and value is not effects._Effect
    }
    assert defined == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("make", [smallest, fullest])
def test_an_effect_reads_as_it_was_written(kind, make):
    effect = make(kind)
    raw = msgspec.msgpack.encode(effect)
    assert msgspec.msgpack.decode(raw, type=Effect) == effect


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_effect_cannot_change(kind):
    effect = smallest(kind)
    with pytest.raises(AttributeError, match="immutable"):
        setattr(effect, kind.__struct_fields__[0], None)
