"""Carries the core's effects to the parts that perform them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from p2pq.core import effects as fx
from p2pq.daemon.guests import Guests
from p2pq.daemon.homecoming import Homecoming
from p2pq.daemon.links import Links
from p2pq.daemon.telemetry import Telemetry
from p2pq.model.ids import NodeId
from p2pq.model.notice import Notice
from p2pq.wire import messages as msg


@dataclass(frozen=True, slots=True, kw_only=True)
class Performing:
    """The parts."""

    links: Links
    guests: Guests
    home: Homecoming
    telemetry: Telemetry
    say: Callable[[NodeId, msg.Message], None]
    told: Callable[[Notice], None]
    guest_begins: Callable[[], None]
    """Hears when what is not this node's own begins here."""

    def perform(self, effect: fx.Effect) -> None:  # noqa: C901, PLR0912  one arm per effect
        """Perform one effect, without waiting; what comes of it returns as an event."""
        match effect:
            case fx.Send():
                self.say(effect.peer, effect.message)
            case fx.Record():
                raise AssertionError("a row is not for performing")
            case fx.Dial():
                self.links.dial(effect.address, effect.node)
            case fx.Hangup():
                self.links.hangup(effect.peer, effect.reason)
            case fx.Drop():
                self.telemetry.drop(effect)
                if effect.close:
                    self.links.hangup(effect.peer, effect.reason)
            case fx.Train():
                self.guests.train(effect)
                if not all(start.own for start in effect.starts):
                    self.guest_begins()
            case fx.Start():
                self.guests.start(effect)
                if not effect.own:
                    self.guest_begins()
            case fx.Fetch():
                self.guests.fetch(effect)
            case fx.Kill():
                self.guests.kill(effect)
            case fx.Suspend() | fx.Continue():
                self.guests.hold(effect)
            case fx.Release():
                self.guests.release(effect)
            case fx.Collect():
                self.home.collect(effect)
            case fx.Forget():
                self.home.forget(effect)
            case fx.Deliver():
                self.home.deliver(effect)
            case fx.Emit(notice=notice):
                self.told(notice)
            case _:
                assert_never(effect)
