"""Which of several ways to a master is taken, as bridges show them: what counts is what has come over it (docs/adr/0205).

Whoever shows a master need not lead there, and what a bridge says itself in that master's name proves nothing. A way over which
nothing comes that the master has signed, while something is missed, is left for the next one, and tried again after all others.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from p2pq.core.deadlines import Deadlines
from p2pq.core.effects import Effect, Emit
from p2pq.core.events import LinkUp
from p2pq.model.ids import Mono, NodeId
from p2pq.model.notice import WayLeft

PATIENCE_S: Final = 60.0
"""A way that has brought nothing yet is left after so long ..."""
PROVEN_S: Final = 600.0
"""... and one that has brought something, so long after the last of it. A master may just have nothing to do."""
DOUBLINGS_MAX: Final = 4
"""With each way that brought nothing the next one has twice that time, so many times at most: idle meshes stay quiet."""
LEFT_MAX: Final = 1024
"""Ways remembered that brought nothing, the latest."""


class Voice(Protocol):
    """What works for masters here, and so hears what comes over a way: the worker, and the stock of a bridge."""

    def brought(self, master: NodeId) -> Mono | None:
        """Return when something that this master has signed last came over the way on which it stands; None: not yet."""

    def waits(self, master: NodeId, now: Mono) -> bool:
        """Tell whether something could come from that master, and is missed."""

    def keeps(self, master: NodeId, now: Mono) -> bool:
        """Tell whether there are attempts of that master which another way could cost, with no sign that this one is bad."""


class Ways:
    """How good each way is, and when the one that a master stands on is to be left."""

    def __init__(self, voices: Iterable[Voice | None]) -> None:
        """Know of no way."""
        self._voices = tuple(voice for voice in voices if voice is not None)
        self._left: dict[tuple[NodeId, NodeId], Mono] = {}
        """When a way, by bridge and master, was last left, or was gone, as it brought nothing; the latest last."""
        self._strikes: dict[NodeId, int] = {}
        """By master: how many were left since the last that brought something."""
        self._standing: dict[NodeId, tuple[LinkUp, Mono]] = {}
        """The way that each master stands on, and since when."""
        self._deadlines: Deadlines[NodeId] = Deadlines()

    @property
    def deadline(self) -> Mono | None:
        """When the next way may have to be left."""
        return self._deadlines.next

    def stand(self, link: LinkUp, now: Mono) -> None:
        """A master stands on that way from now on."""
        self._standing[link.peer] = (link, now)

    def fall(self, master: NodeId) -> None:
        """A master stands on its way no more."""
        self._standing.pop(master, None)
        self._deadlines.cancel(master)

    def gone(self, link: LinkUp, now: Mono) -> None:
        """The way that a master stands on leads there no more.

        One over further bridges that has brought nothing comes behind all others then, as if it had been left. Of two bridges
        side by side each may like the way over the other one best, which ends for both as soon as they take it: they would go
        back and forth for ever, and everybody below with them.
        """
        if len(link.path) > 1 and self._brought(link.peer) is None:
            self._leave(link, now)

    def _leave(self, link: LinkUp, now: Mono) -> None:
        """That way comes behind all others from now on."""
        key = (link.path[0], link.peer)
        self._left.pop(key, None)
        self._left[key] = now
        if len(self._left) > LEFT_MAX:
            del self._left[next(iter(self._left))]

    def woke(self, now: Mono) -> None:
        """This node did nothing for a while: no way is to blame for that."""
        for master, (link, _) in self._standing.items():
            self._standing[master] = (link, now)
            if master in self._deadlines:
                self._deadlines.set(master, self._due(master))

    def watch(self, master: NodeId, now: Mono, *, several: bool) -> None:
        """See to it that the way of a master is left in time, if there are ``several``."""
        if not several:
            self._deadlines.cancel(master)
        elif master in self._standing and master not in self._deadlines:
            self._deadlines.set(master, max(self._due(master), Mono(now + PATIENCE_S)))

    def forget(self, known: Callable[[NodeId], bool]) -> None:
        """Remember nothing of masters that nobody shows."""
        for master in [master for master in self._strikes if not known(master)]:
            del self._strikes[master]

    def best(self, ways: Sequence[LinkUp]) -> LinkUp:
        """Return the way to take of those to one master; of equal ones the first."""
        return ways[0] if len(ways) == 1 else min(ways, key=self._rank)

    def better(self, other: LinkUp, link: LinkUp) -> bool:
        """Tell whether there is reason to leave a way for another one."""
        return other.path[0] != link.path[0] and self._rank(other) < self._rank(link)

    def _rank(self, link: LinkUp) -> tuple[float, int]:
        """Return what is the less the better a way is: those left longest ago come first, and of these the shortest.

        What something comes over is as good as can be: merely to promise a shorter way takes nobody from it.
        """
        bridge, master = link.path[0], link.peer
        left = self._left.get((bridge, master), float("-inf"))
        standing = self._standing.get(master)
        if standing is not None and standing[0].path[0] == bridge:
            brought = self._brought(master)
            if brought is not None and brought > left:
                return (float("-inf"), 0)
        return (left, len(link.path))

    def _brought(self, master: NodeId) -> Mono | None:
        instants = (voice.brought(master) for voice in self._voices)
        return max((at for at in instants if at is not None), default=None)

    def _due(self, master: NodeId) -> Mono:
        """Return until when the way of a master has time to bring something."""
        brought, since = self._brought(master), self._standing[master][1]
        patience_s = PATIENCE_S if brought is None else PROVEN_S
        strikes = min(self._strikes.get(master, 0), DOUBLINGS_MAX) if brought is None else 0
        return Mono(max(since, brought or since) + patience_s * 2**strikes)

    def fire(self, now: Mono) -> list[Effect]:
        """Judge the ways that have had their time; return what is to be told. Those left come behind all others from now on."""
        told: list[Effect] = []
        while (master := self._deadlines.pop(now)) is not None:
            link = self._standing[master][0]
            bridge, due = link.path[0], self._due(master)
            if self._brought(master) is not None:
                self._left.pop((bridge, master), None)
                self._strikes.pop(master, None)
            if due > now:
                self._deadlines.set(master, due)
            elif not self._misses(master, now):
                self._deadlines.set(master, Mono(now + PATIENCE_S))
            else:
                self._leave(link, now)
                self._strikes[master] = self._strikes.get(master, 0) + 1
                told.append(Emit(notice=WayLeft(master=master, bridge=bridge)))
        return told

    def _misses(self, master: NodeId, now: Mono) -> bool:
        keeps = any(voice.keeps(master, now) for voice in self._voices)
        return not keeps and any(voice.waits(master, now) for voice in self._voices)

    def check(self) -> None:
        """Assert the bounds, and that only ways that are taken are judged."""
        self._deadlines.check()
        assert len(self._left) <= LEFT_MAX, "too many ways are remembered"
        assert all(master in self._standing for master in self._deadlines), "a way is judged that nobody takes"
