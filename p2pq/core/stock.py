"""Placeholder for the integrator's type checks; replaced by the part that is written beside it."""

from collections.abc import Callable

from p2pq.core.effects import Effect
from p2pq.core.events import Event
from p2pq.core.identity import Identity
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import Mono, Wall


class Stock:
    """What a bridge has in stock."""

    def __init__(
        self,
        identity: Identity,
        schedule: ScheduleSettings,
        entropy: Callable[[int], bytes],
        wall: Callable[[Mono], Wall],
    ) -> None:
        """Have nothing."""

    @property
    def deadline(self) -> Mono | None:
        """Return when something is due."""
        return None

    def handle(self, event: Event, now: Mono) -> list[Effect]:
        """Do nothing."""
        return []

    def check(self) -> None:
        """Assert nothing."""
