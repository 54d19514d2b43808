"""What sensors say of the people at a machine, and what follows from it for guests.

Every sensor may be absent: then its reading is None, and ``absent`` says why, for `p2pq status` and `p2pq doctor`.
"""

from typing import Final, Literal

import msgspec

Stance = Literal["run", "hold", "suspend", "evict", "kill"]
"""run: guests are welcome. hold: those here go on, no more are taken. suspend: they stand still. evict: they are asked to end (a
signal, a grace, SIGKILL) and go back to their masters. kill: the same at once, without any grace."""

SENSORS: Final = ("input", "screen", "load", "memory", "power", "programs")


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at one moment. None: nothing can tell."""

    idle_s: float | None = None
    """Seconds since anybody touched a keyboard or mouse of this machine, or typed into a terminal of it, here or from afar."""
    locked: bool | None = None
    """The screen is locked or blanked."""
    saver: bool | None = False
    """`p2pq screensaver` runs. The node itself knows that; None only where reading the sensors failed as a whole."""
    full_screen: bool | None = None
    """A program fills the screen: a film, a talk, a game."""
    load: float | None = None
    """Cores that processes other than those of this node use, as a part of all cores; 1 is all of them."""
    pressure: float | None = None
    """Parts of the last ten seconds in which some process waited for memory, from 0 to 1."""
    mains: bool | None = None
    """The machine does not run on its battery. True where it has none."""
    battery: float | None = None
    """How full that is, from 0 to 1; None where there is none."""
    programs: tuple[str, ...] | None = None
    """Those of the programs named in ``[policy] programs`` that run, sorted."""
    weekday: int = 0
    """By the local clock; 0 is Monday."""
    minute: int = 0
    """Minutes since midnight, by the local clock."""
    guests_mb: int | None = None
    """Memory that guests take here, together; told while they stand still and that may matter."""
    absent: tuple[tuple[str, str], ...] = ()
    """Sensors (of ``SENSORS``) that cannot tell, with why and what to do about it, as one clause."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What guests may do now, and why, in a few words for people; no reason where they may run."""

    stance: Stance = "run"
    reason: str = ""

    @property
    def still(self) -> bool:
        """Whether no guest runs."""
        return self.stance in {"suspend", "evict", "kill"}
