"""What a node keeps when it changes its mesh."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pq.daemon import offering
from p2pq.daemon.home import Home
from p2pq.daemon.identity import NodeKeys
from p2pq.daemon.owner import Owner
from p2pq.daemon.sandbox import JobPython
from p2pq.daemon.selftest import IsolationReport
from p2pq.daemon.telemetry import Telemetry
from p2pq.model.config import Settings
from p2pq.model.ids import Mono, Wall

if TYPE_CHECKING:
    from p2pq.daemon.generation import Generation


@dataclass(slots=True, kw_only=True)
class Lasting:
    """The parts, settings and clocks that outlive a generation."""

    home: Home
    settings: Settings
    keys: NodeKeys
    telemetry: Telemetry
    machine: offering.Machine
    owner: Owner
    """Whose machine this is, as far as its policy knows."""
    python: JobPython
    listen: str
    """Where to listen: after the first generation with the port that it got."""
    mono: Callable[[], Mono]
    wall: Callable[[], Wall]
    boot: Callable[[], float] | None
    restart: "Callable[[tuple[str, ...], tuple[bytes, ...]], Awaitable[Generation]]"
    """Begin anew in the mesh that the keys now name; the generation that serves there."""
    stop: Callable[[bool], None]
    hints: tuple[str, ...] = ()
    bans: tuple[bytes, ...] = ()
    """What a join told: where to look for peers, and who is out."""
    isolation: IsolationReport | None = None
    """What the self-test found; None until it has ended."""
    features: frozenset[str] = frozenset()
    duplicate: str = ""
    """A sentence, when another node uses this node's key."""

    @property
    def bridging(self) -> bool:
        """Whether it carries links for others: it is told to, and its certificate says that it may."""
        return self.settings.bridge.enabled and "bridge" in self.keys.cert.caps
