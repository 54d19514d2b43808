"""Each effect of the core reaches the part that performs it."""

from types import SimpleNamespace
from typing import get_args

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.daemon.performing import Performing
from tests.samples import smallest

PARTS = {
    fx.Send: ["say"],
    fx.Dial: ["links.dial"],
    fx.Hangup: ["links.hangup"],
    fx.Drop: ["telemetry.drop"],
    fx.Train: ["guests.train"],
    fx.Start: ["guests.start", "guest_begins"],
    fx.Fetch: ["guests.fetch"],
    fx.Kill: ["guests.kill"],
    fx.Suspend: ["guests.hold"],
    fx.Continue: ["guests.hold"],
    fx.Release: ["guests.release"],
    fx.Collect: ["home.collect"],
    fx.Forget: ["home.forget"],
    fx.Deliver: ["home.deliver"],
    fx.Emit: ["told"],
}


class Rig:
    def __init__(self):
        self.called = []
        parts = {name: self.part(name) for name in ("links", "guests", "home", "telemetry")}
        self.performing = Performing(
            **parts, say=self.note("say"), told=self.note("told"), guest_begins=self.note("guest_begins")
        )

    def note(self, name):
        return lambda *_args: self.called.append(name)

    def part(self, name):
        methods = "dial hangup drop train start fetch kill hold release collect forget deliver".split()  # noqa: SIM905
        return SimpleNamespace(**{method: self.note(f"{name}.{method}") for method in methods})


@pytest.mark.parametrize("kind", [kind for kind in get_args(fx.Effect) if kind is not fx.Record])
def test_each_effect_has_its_part(kind):
    rig = Rig()
    rig.performing.perform(smallest(kind))
    assert rig.called == PARTS[kind]


def test_what_is_of_this_very_node_is_no_guest():
    rig = Rig()
    own = msgspec.structs.replace(smallest(fx.Start), own=True)
    rig.performing.perform(own)
    rig.performing.perform(fx.Train(starts=(own, own)))
    assert rig.called == ["guests.start", "guests.train"]
    rig.performing.perform(fx.Train(starts=(own, smallest(fx.Start))))
    assert rig.called[2:] == ["guests.train", "guest_begins"]


def test_what_must_not_be_said_may_cost_the_link():
    rig = Rig()
    rig.performing.perform(fx.Drop(peer=b"p" * 32, reason="nonsense", close=True))
    assert rig.called == ["telemetry.drop", "links.hangup"]


def test_rows_are_for_the_store_alone():
    with pytest.raises(AssertionError, match="a row is not for performing"):
        Rig().performing.perform(smallest(fx.Record))
