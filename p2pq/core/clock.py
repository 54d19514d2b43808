"""Wall time from monotonic time: the core is told the wall clock now and then and counts on from there."""

from p2pq.model.ids import Mono, Wall


class WallClock:
    """What the wall clock shows at an instant of the monotonic clock. Data for people and certificates only."""

    def __init__(self, now: Mono, wall: Wall) -> None:
        """Tie the two clocks together."""
        self._now = now
        self._wall = wall

    def rebase(self, now: Mono, wall: Wall) -> None:
        """Tie them together anew: the wall clock was set, or drifted."""
        self._now = now
        self._wall = wall

    def at(self, now: Mono) -> Wall:
        """Return the wall time at ``now``, in milliseconds; never before the epoch."""
        return Wall(max(0, self._wall + round((now - self._now) * 1000)))
