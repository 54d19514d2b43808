"""What a worker does when it wakes: it asks before it continues, and the time that it slept is nobody's run time.

What ran here may have been given to others meanwhile, so it stands still until its master has said that it is still ours.
Who cannot say (not linked, silent, or of the first version) keeps nobody waiting for long: results are accepted by lease only.
"""

from collections.abc import Callable, Mapping
from typing import Final

from p2pq.core.asking import Asking, Timer
from p2pq.core.deadlines import Deadlines
from p2pq.core.effects import Effect, Send
from p2pq.core.events import Woke
from p2pq.core.grants import Master
from p2pq.core.slots import Attempt, Slots
from p2pq.core.stillness import Stillness
from p2pq.model.ids import Mono, NodeId
from p2pq.wire.messages import LEASES_MAX, SINCE, Confirm, Confirmed

CONFIRM_S: Final = 20.0
"""So long after waking, or after the next link-up, a master is waited for; its owner may be away for days."""
_NONCE_BYTES: Final = 16


class Waking:
    """Attempts across a sleep. Shares the worker's slots, deadlines and linked masters."""

    def __init__(
        self,
        slots: Slots,
        stillness: Stillness,
        asking: Asking,
        deadlines: Deadlines[Timer],
        masters: Mapping[NodeId, Master],
        entropy: Callable[[int], bytes],
    ) -> None:
        """Share what the worker has; nothing is in doubt yet."""
        self._slots = slots
        self._stillness = stillness
        self._asking = asking
        self._deadlines = deadlines
        self._masters = masters
        self._entropy = entropy
        self._asked: dict[NodeId, bytes] = {}
        """Masters that are to say what is still ours, and the nonce they were asked with; empty before they are linked."""

    def woke(self, event: Woke, patience_s: float, now: Mono, out: list[Effect]) -> None:
        """Stop what others may have been given meanwhile and ask; leave the sleep out of every account.

        Args:
            event: how long this node slept.
            patience_s: how long a lease ahead may wait.
            now: the present.
            out: what is to be done.
        """
        if event.counted:
            self._asking.woke(now)
            for attempt in self._slots:
                if attempt.since is None:
                    self._deadlines.set(("ahead", (attempt.master, attempt.lease)), Mono(now + patience_s))
                elif attempt.still is None and attempt.left is None:
                    self._stillness.postpone(attempt, event.slept_s, now)
        for master in dict.fromkeys(attempt.master for attempt in self._slots if not attempt.own):
            if self._can_say(master):
                for attempt in self._slots.of(master):
                    self._stillness.doubt(attempt, now, out)
                self._ask(master, now, out)

    def linked(self, master: NodeId, now: Mono, out: list[Effect]) -> None:
        """Ask a master that could not be asked, or whose answer cannot come any more."""
        if master not in self._asked:
            return
        if self._can_say(master):
            self._ask(master, now, out)
        else:
            self.lapse(master, now, out)

    def confirmed(self, master: NodeId, message: Confirmed, now: Mono, out: list[Effect]) -> list[Attempt]:
        """Let go on what is still ours; return what is not. An answer to no question, or to an old one, is ignored."""
        if self._asked.get(master) != message.nonce:
            return []
        self.forget(master)
        ours = frozenset(message.leases)
        doubted = [attempt for attempt in self._slots.of(master) if attempt.doubted]
        for attempt in doubted:
            if attempt.lease in ours:
                self._stillness.trust(attempt, now, out)
        return [attempt for attempt in doubted if attempt.doubted]

    def lapse(self, master: NodeId, now: Mono, out: list[Effect]) -> None:
        """Go on without an answer."""
        self.forget(master)
        for attempt in self._slots.of(master):
            if attempt.doubted:
                self._stillness.trust(attempt, now, out)

    def forget(self, master: NodeId) -> None:
        """Wait for no answer of that master."""
        self._asked.pop(master, None)
        self._deadlines.cancel(("confirm", master))

    def _can_say(self, master: NodeId) -> bool:
        """Whether it may answer; of one that is not linked nothing is known yet."""
        linked = self._masters.get(master)
        return linked is None or linked.minor >= SINCE[Confirm]

    def _ask(self, master: NodeId, now: Mono, out: list[Effect]) -> None:
        self._asked[master] = b""
        self._deadlines.set(("confirm", master), Mono(now + CONFIRM_S))
        if master in self._masters:
            self._asked[master] = self._entropy(_NONCE_BYTES)
            leases = tuple(attempt.lease for attempt in self._slots.of(master) if attempt.doubted)
            out.append(Send(peer=master, message=Confirm(nonce=self._asked[master], leases=leases[:LEASES_MAX])))

    def check(self) -> None:
        """Assert that no attempt is in doubt for ever."""
        for attempt in self._slots:
            assert not attempt.doubted or attempt.master in self._asked, "stands still, and nobody is asked"
        for master in self._asked:
            assert ("confirm", master) in self._deadlines, "an answer is waited for without end"
