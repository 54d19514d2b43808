"""What a worker does when it wakes: the time that it slept is nobody's run time."""

from p2pq.core.asking import Asking, Timer
from p2pq.core.deadlines import Deadlines
from p2pq.core.events import Woke
from p2pq.core.fairness import Fairness
from p2pq.core.slots import Attempt, Slots
from p2pq.model.ids import Mono


class Waking:
    """The clocks of attempts across a sleep. Shares the worker's slots, accounts and deadlines."""

    def __init__(self, slots: Slots, fairness: Fairness, asking: Asking, deadlines: Deadlines[Timer]) -> None:
        """Share what the worker has; nothing sleeps yet."""
        self._slots = slots
        self._fairness = fairness
        self._asking = asking
        self._deadlines = deadlines

    def woke(self, event: Woke, patience_s: float, now: Mono) -> None:
        """Count nothing of a sleep that the clock has counted, and be patient anew.

        Args:
            event: how long this node slept.
            patience_s: how long a lease ahead may wait.
            now: the present.
        """
        if not event.counted:
            return
        self._asking.woke(now)
        for attempt in self._slots:
            if attempt.state == "waiting":
                self._deadlines.set(("ahead", (attempt.master, attempt.lease)), Mono(now + patience_s))
            else:
                self._postpone(attempt, event.slept_s, now)

    def _postpone(self, attempt: Attempt, by_s: float, now: Mono) -> None:
        assert attempt.since is not None, "runs, but since when?"
        attempt.since = min(now, Mono(attempt.since + by_s))
        if not attempt.own:
            self._fairness.postpone((attempt.master, attempt.lease), by_s, now)
