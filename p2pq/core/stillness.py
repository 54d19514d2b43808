"""Attempts that stand still: whose master may have given them to others, and guests that this machine's owner does not want now.

One may stand still for both at once, and goes on when neither holds any more. What it stood still is nobody's run time.
"""

from p2pq.core.effects import Continue, Effect, Suspend
from p2pq.core.fairness import Accounts
from p2pq.core.slots import Attempt
from p2pq.model.ids import Mono


class Stillness:
    """Lets attempts stand still and go on. Shares the worker's accounts."""

    def __init__(self, accounts: Accounts) -> None:
        """Share what the worker has."""
        self._accounts = accounts

    def doubt(self, attempt: Attempt, now: Mono, out: list[Effect]) -> None:
        """Let it stand still, or not begin, until its master has said that it is still ours."""
        attempt.doubted = True
        self._stop(attempt, "", now, out)

    def trust(self, attempt: Attempt, now: Mono, out: list[Effect]) -> None:
        """End the doubt."""
        attempt.doubted = False
        self._go_on(attempt, now, out)

    def hold(self, attempt: Attempt, reason: str, now: Mono, out: list[Effect]) -> None:
        """Let a guest that has a slot stand still for this machine's owner, and say why."""
        attempt.held = True
        if attempt.still is None:
            self._stop(attempt, reason, now, out)
        else:
            out.append(Suspend(lease=attempt.lease, master=attempt.master, reason=reason))

    def let_go(self, attempt: Attempt, now: Mono, out: list[Effect]) -> None:
        """The owner minds it no longer."""
        attempt.held = False
        self._go_on(attempt, now, out)

    def settle(self, attempt: Attempt, now: Mono) -> None:
        """It stands still no longer, as it ends or goes on: what it stood counts as no run time."""
        attempt.doubted = attempt.held = False
        if attempt.still is not None:
            self.postpone(attempt, now - attempt.still, now)
            attempt.still = None

    def postpone(self, attempt: Attempt, by_s: float, now: Mono) -> None:
        """Count so many seconds of those that it has its slot as none that it ran."""
        assert attempt.since is not None, "runs, but since when?"
        attempt.since = min(now, Mono(attempt.since + by_s))
        if not attempt.own:
            self._accounts[attempt.far].postpone((attempt.master, attempt.lease), by_s, now)

    def _stop(self, attempt: Attempt, reason: str, now: Mono, out: list[Effect]) -> None:
        if attempt.since is not None and attempt.still is None and attempt.state != "packing":
            attempt.still = now
            out.append(Suspend(lease=attempt.lease, master=attempt.master, reason=reason))

    def _go_on(self, attempt: Attempt, now: Mono, out: list[Effect]) -> None:
        if attempt.still is not None and not (attempt.doubted or attempt.held):
            self.settle(attempt, now)
            out.append(Continue(lease=attempt.lease, master=attempt.master))
