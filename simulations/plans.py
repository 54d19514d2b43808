"""What a host is, and how likely things go wrong on hosts."""

import msgspec

from p2pq.model.job import Profile
from p2pq.wire import messages as msg


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is and does."""

    index: int
    name: str
    owner: str
    caps: tuple[str, ...]
    profile: Profile
    own: Profile
    links_max: int
    listens: bool
    submits: bool
    """Whether its user has jobs."""
    dials: tuple[int, ...]
    """The hosts that it knows of from the start."""
    skew_ms: int = 0
    """How wrong its wall clock is."""
    minor: int = msg.MINOR
    """The newest minor version of the protocol that it speaks."""
    slower: float = 1.0
    """Attempts take so many times as long here."""
    fails_s: float | None = None
    """Every attempt fails here after so long."""
    bridging: bool = False
    """It carries links between those that cannot reach each other."""
    batching: bool = False
    """As a bridge it speaks for the workers below instead."""


class Misfortune(msgspec.Struct):
    """How likely things go wrong on hosts, now; shared by all of them."""

    fault: float = 0.0
    """An attempt cannot start."""
    collect: float = 0.0
    """A result cannot be fetched."""
    deliver: float = 0.0
    """Results cannot be written out."""
    packs: float = 0.0
    """What an attempt left takes a while to be packed, and its slot is free meanwhile."""


def address_of(index: int) -> str:
    """Return where a host listens."""
    return f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}:9476"
