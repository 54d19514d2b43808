"""Whose turn it is: owners share this worker's time equally, with no accountant anywhere else.

A worker draws an owner with weight ``exp(-lead / scale) / length``. The length is how long an attempt of that owner
takes: who is drawn half as often for twice as long gets as much, from the first draw on. The lead is how many
slot-seconds (times cpus) it has given the owner beyond the least-served owner that has work now, counted from grant to
free. What was granted and is not yet free counts as its expected length, or as what it has run where that is more:
otherwise an owner of long tasks would look unserved while it fills slot after slot. Where attempts are short the scale
is so, too: leads that they leave are made up for while they still matter.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import exp
from random import Random
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from p2pq.model.ids import Mono

MEANS_MAX: Final = 4096
"""Jobs and owners whose mean length is remembered; beyond it the least recently measured is forgotten."""
ACCOUNTS_MAX: Final = 4096
"""Owners with an account; beyond it the longest-known one without work or grants is forgotten."""
SCALE_LENGTHS: Final = 2
"""The scale is so many mean attempts, but at most what is configured."""
SHORTEST: Final = 1 / 20
"""Attempts shorter than such a part of the scale are drawn as if they were that long: many of them are asked for at once. What
takes longer than the scale counts as that: leads decide then."""
_WEIGHT: Final = 1 / 8
"""What a new length counts for in a mean of many."""


class Means:
    """Mean lengths of attempts that ended here, by any key (a job, an owner); old ones fade."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self._means: dict[Hashable, tuple[int, float]] = {}

    def learn(self, key: Hashable, seconds: float, count: int = 1) -> None:
        """Take in ``count`` attempts that took ``seconds`` each on average."""
        seen, mean = self._means.pop(key, (0, 0.0))
        weight = max(count / (seen + count), 1 - (1 - _WEIGHT) ** count)
        self._means[key] = (min(seen + count, 1 << 30), mean + weight * (seconds - mean))
        if len(self._means) > MEANS_MAX:
            del self._means[next(iter(self._means))]

    def get(self, key: Hashable) -> float | None:
        """Return the mean in seconds; None where nothing of that key ended here yet."""
        found = self._means.get(key)
        return None if found is None else found[1]

    def lengths(self, keys: Iterable[str], prior_s: float) -> dict[str, float]:
        """Return how long each is expected to take: what is not known as long as one of the others, or ``prior_s``."""
        found = {key: self.get(key) for key in keys}
        known = [mean_s for mean_s in found.values() if mean_s is not None]
        usual_s = sum(known) / len(known) if known else prior_s
        return {key: usual_s if mean_s is None else mean_s for key, mean_s in found.items()}

    def seen(self, key: Hashable) -> int:
        """Return how many lengths the mean is of."""
        return self._means.get(key, (0, 0.0))[0]


class _Charge(msgspec.Struct):
    """Something granted and not yet free. ``since`` is when it took its slot; None while it waits for one."""

    owner: str
    cpus: int
    expected_s: float
    since: Mono | None = None


class Fairness:
    """What each owner got here, and the draw. One per worker; nothing of it is shared or durable."""

    def __init__(self, scale_s: float, mode: Literal["time", "uniform"] = "time") -> None:
        """Start with no accounts.

        Args:
            scale_s: an owner with this lead is drawn e times less often.
            mode: ``time``, or ``uniform`` to draw every owner alike (for comparison).
        """
        self._scale_s = scale_s
        self._mode = mode
        self._given: dict[str, float] = {}
        """Slot-seconds of what is free again, and the expected ones of every open charge."""
        self._charges: dict[Hashable, _Charge] = {}
        self._running: dict[Hashable, _Charge] = {}
        """The charges that occupy a slot; may have run longer than expected."""
        self._active: dict[str, None] = {}
        """Owners with work at the last draw."""

    def charge(self, key: Hashable, owner: str, cpus: int, expected_s: float) -> None:
        """Open a charge for something asked for or granted; until ``occupy`` it counts as ``expected_s``."""
        assert key not in self._charges, "charged twice"
        self._charges[key] = _Charge(owner=owner, cpus=cpus, expected_s=expected_s)
        self._given[owner] = self._given.get(owner, 0.0) + expected_s * cpus

    def occupy(self, key: Hashable, now: Mono) -> None:
        """Count the charge from now: it has taken its slot."""
        charge = self._charges[key]
        charge.since = now
        self._running[key] = charge

    def postpone(self, key: Hashable, by_s: float, now: Mono) -> None:
        """Do not count so many of the seconds since ``occupy``, if it has taken a slot: nothing ran in them."""
        charge = self._running.get(key)
        if charge is not None and charge.since is not None:
            charge.since = min(now, Mono(charge.since + by_s))

    def vacate(self, key: Hashable, now: Mono) -> None:
        """Count the charge as before ``occupy``, if it has taken a slot: it waits for another; the time until now is paid."""
        charge = self._running.pop(key, None)
        if charge is not None and charge.since is not None:
            self._given[charge.owner] += (now - charge.since) * charge.cpus
            charge.since = None

    def free(self, key: Hashable, now: Mono) -> float:
        """Close the charge; the owner pays for the time since ``occupy``, nothing without one.

        Returns:
            The seconds that the slot was taken.
        """
        charge = self._charges.pop(key)
        self._running.pop(key, None)
        took_s = 0.0 if charge.since is None else now - charge.since
        self._given[charge.owner] += (took_s - charge.expected_s) * charge.cpus
        return took_s

    def given(self, now: Mono) -> dict[str, float]:
        """Return the slot-seconds per owner: paid, running and expected."""
        given = dict(self._given)
        for charge in self._running.values():
            assert charge.since is not None, "runs, but since when?"
            over_s = now - charge.since - charge.expected_s
            if over_s > 0:
                given[charge.owner] += over_s * charge.cpus
        return given

    def draw(
        self, owners: Sequence[str], now: Mono, rng: Random, lengths: Mapping[str, float] = MappingProxyType({})
    ) -> str:
        """Return the owner to serve next.

        Args:
            owners: everyone that has work for this worker now, without repeats; at least one.
            now: the instant that running charges are counted to.
            rng: where the draw's one random number comes from.
            lengths: the seconds that an attempt of each owner is expected to take; none: all are as long as the scale.
        """
        given = self.given(now)
        self._level(owners, given)
        if len(owners) == 1:
            return owners[0]
        if self._mode == "uniform":
            return owners[rng.randrange(len(owners))]
        least = min(given[owner] for owner in owners)
        lengths = lengths or dict.fromkeys(owners, self._scale_s)
        usual_s = sum(lengths.values()) / len(lengths)
        scale_s = min(self._scale_s, max(SCALE_LENGTHS * usual_s, self._scale_s * SHORTEST))
        weights = [exp((least - given[owner]) / scale_s) / self._quantum(lengths[owner]) for owner in owners]
        point = rng.random() * sum(weights)
        for owner, weight in zip(owners, weights, strict=True):
            point -= weight
            if point < 0:
                return owner
        return owners[-1]

    def _quantum(self, length_s: float) -> float:
        """Return about how much an owner is given at a draw, in seconds."""
        return min(self._scale_s, max(self._scale_s * SHORTEST, length_s))

    def _level(self, owners: Sequence[str], given: dict[str, float]) -> None:
        """Raise newcomers and returners to the least served of those that had work before and still have.

        An absence earns nothing. A lead is kept, or leaving for a moment would wipe it out. With nobody to compare with, they
        start level with whoever got most, so that nobody is in debt for using an idle machine.
        """
        if all(owner in self._active for owner in owners):
            if len(owners) != len(self._active):
                self._active = dict.fromkeys(owners)
            return
        stayed = [given[owner] for owner in owners if owner in self._active]
        level = min(stayed) if stayed else max(given.values(), default=0.0)
        for owner in owners:
            if owner in self._active:
                continue
            # Where nobody stayed there is no lead to keep: everybody who comes is level with the highest.
            rise = level - given.get(owner, 0.0)
            if rise > 0 or owner not in given:
                self._given[owner] = self._given.get(owner, 0.0) + max(rise, 0.0)
                given[owner] = given.get(owner, 0.0) + max(rise, 0.0)
        self._active = dict.fromkeys(owners)
        self._prune()

    def _prune(self) -> None:
        """Forget accounts beyond ACCOUNTS_MAX; their owners would start level with the least served anyway."""
        if len(self._given) <= ACCOUNTS_MAX:
            return
        charged = {charge.owner for charge in self._charges.values()}
        idle = [owner for owner in self._given if owner not in self._active and owner not in charged]
        for owner in idle[: len(self._given) - ACCOUNTS_MAX]:
            del self._given[owner]

    def check(self) -> None:
        """Assert that the books agree."""
        assert all(self._charges.get(key) is charge for key, charge in self._running.items()), "runs uncharged"
        assert all(charge.owner in self._given for charge in self._charges.values()), "charge without an account"


Accounts = Mapping[bool, Fairness]
"""What owners got of a worker, by whether bridges carry the links to their masters. Those of its own network go first, so owners
are equals among either; and whoever leads on one side owes nothing on the other."""


def accounts(scale_s: float, mode: Literal["time", "uniform"] = "time") -> Accounts:
    """Return accounts for either side; the arguments are those of ``Fairness``."""
    return {far: Fairness(scale_s, mode) for far in (False, True)}
