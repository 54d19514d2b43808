"""Certificates that renew themselves: an aging member asks linked admins, and bridges, which pass it on towards one.

A certificate is no secret and of use to its holder alone, so whoever carries it there and back can only lose it. Admins and
bridges check that it is a member's; the member, that what comes back says the same of it for longer.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from p2pq.daemon.identity import NodeKeys, aged
from p2pq.daemon.link import Link
from p2pq.errors import ConfigError, Reject, StorageError
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import sign, trust
from p2pq.wire.messages import HOPS_MAX, RENEWALS_SINCE, Renewed, RenewWant
from p2pq.wire.objects import Capability, Cert

log = logging.getLogger(__name__)

NOT_KEPT: Final = "renewed-certificate-not-kept"
FOREIGN: Final = "renewal-of-another-mesh"
NOT_DUE: Final = "renewal-not-due"
SIGN_S: Final = 600.0
"""An admin signs for the same member, as which nothing has changed, once in so long; in between it repeats what it signed."""
PASS_S: Final = 60.0
"""A bridge passes the question of a member on once in so long, and knows meanwhile who has asked."""
MEMBERS_MAX: Final = 1024
"""Members remembered for either; the one that asked longest ago goes first."""
ASKERS_MAX: Final = 8
"""Neighbours that have asked a bridge for the same member: itself, or bridges on its way."""
ANSWERS_MAX: Final = 4
"""Answers that a bridge passes back to them: of one admin each."""
BRIDGES_MAX: Final = 16
"""Further bridges to which a bridge passes a question on, where no admin is linked."""


class Asked(msgspec.Struct):
    """What a bridge has passed on for a member."""

    at: float
    askers: dict[NodeId, None]
    answers: int = 0


class Renewals:
    """All sides of a renewal: the member's, the admin's, and the bridge's in between."""

    def __init__(  # noqa: PLR0913  each is a different fact
        self,
        keys: NodeKeys,
        wall: Callable[[], Wall],
        is_banned: trust.IsBanned,
        clock: Callable[[], float],
        linked: Callable[[], Iterable[Link]],
        send: Callable[[NodeId, RenewWant | Renewed], None],
        *,
        bridging: bool,
    ) -> None:
        """Know nobody yet.

        Args:
            keys: whose certificate is renewed, and which renew those of others.
            wall: reads the clock.
            is_banned: who is out: gets none, and signs none.
            clock: seconds, for what is repeated too soon.
            linked: all links.
            send: says something to a linked peer, as ``Links.send``.
            bridging: pass on what others ask and answer.
        """
        self._keys, self._wall, self._is_banned, self._clock = keys, wall, is_banned, clock
        self._linked, self._send, self._bridging = linked, send, bridging
        self._signed: dict[NodeId, tuple[float, Cert, tuple[bytes, ...]]] = {}
        """When, of which certificate, and the new chain; the latest last."""
        self._asked: dict[NodeId, Asked] = {}
        """The latest last."""

    def tick(self) -> None:
        """An hour has passed: renew our own certificate as the founder, else ask everybody again if it has aged."""
        try:
            self._keys.renew_own(self._wall())
        except (ConfigError, StorageError) as error:
            log.warning("certificate.not-kept", extra={"fields": {"reason": str(error)}})
        for each in list(self._linked()):
            self.ask(each)

    def ask(self, peer: Link) -> None:
        """Ask this peer, if our certificate has aged and it can renew it, or may know who can."""
        if not self._keys.renewal_due(self._wall()):
            return
        cert, *issuer = self._keys.state.certs
        if peer.peer == self._keys.cert.iss or _may(peer, "admin") or _may(peer, "bridge"):
            peer.send(RenewWant(cert=cert, issuer=b"".join(issuer)))

    def answer(self, peer: Link, message: RenewWant) -> str | None:
        """Renew a certificate, or pass the question on; return why not, if that is the peer's doing."""
        if peer.info.mesh:
            return FOREIGN
        try:
            old = self._verified(self._chain(message))
            if not aged(old, Wall(self._wall() + trust.SKEW_MS)):
                return NOT_DUE
            if certs := self._renew(old):
                peer.send(Renewed(certs=certs))
            elif self._bridging:
                self._pass_on(peer.peer, old, message)
        except Reject as error:
            return error.reason
        except ConfigError as error:
            log.warning("certificate.not-renewed", extra={"fields": {"reason": str(error)}})
        return None

    def take(self, peer: Link, message: Renewed) -> str | None:
        """Keep our renewed certificate, or pass that of another back; return why not, if that is the peer's doing."""
        if peer.info.mesh:
            return FOREIGN
        try:
            cert = self._verified(message.certs)
            if cert.sub == self._keys.node:
                self._keys.renewed(message.certs, self._wall())
            else:
                self._pass_back(NodeId(cert.sub), message)
        except Reject as error:
            return error.reason
        except StorageError as error:
            # The home is full, say: it is asked for again.
            log.warning("certificate.not-kept", extra={"fields": {"reason": str(error)}})
            return NOT_KEPT
        return None

    def _chain(self, message: RenewWant) -> tuple[bytes, ...]:
        if message.issuer:
            return message.cert, message.issuer
        claimed = sign.open_claimed(message.cert, Cert, lambda cert: cert.iss)
        # Members of older versions ask only the admin that has let them in, and do not say by which certificate.
        return (message.cert, self._keys.state.certs[-1]) if claimed.iss == self._keys.node else (message.cert,)

    def _renew(self, old: Cert) -> tuple[bytes, ...]:
        """Return a new chain, or that of some minutes ago; nothing where this node cannot make one."""
        node, now = NodeId(old.sub), self._clock()
        at, known, certs = self._signed.get(node, (now, old, ()))
        if not certs or now - at >= SIGN_S or _words(known) != _words(old):
            certs = self._keys.renew(old, self._wall())
            if certs:
                self._signed.pop(node, None)
                self._signed[node] = now, old, certs
                _shorten(self._signed)
        return certs

    def _pass_on(self, asker: NodeId, old: Cert, message: RenewWant) -> None:
        node, now = NodeId(old.sub), self._clock()
        asked = self._asked.get(node)
        if asked is not None and now - asked.at < PASS_S:
            if len(asked.askers) < ASKERS_MAX:
                asked.askers[asker] = None
            return
        self._asked.pop(node, None)
        self._asked[node] = Asked(at=now, askers={asker: None})
        _shorten(self._asked)
        if message.hops >= HOPS_MAX:
            return
        others = [each for each in self._linked() if each.peer not in {asker, node}]
        admins = [each for each in others if _may(each, "admin")][:ANSWERS_MAX]
        # Which of the admins could renew one of their own is not known here.
        further = [each for each in others if _may(each, "bridge")] if "admin" in old.caps or not admins else []
        on = RenewWant(cert=message.cert, issuer=message.issuer, hops=message.hops + 1)
        for each in dict.fromkeys(each.peer for each in (*admins, *further[:BRIDGES_MAX])):
            self._send(each, on)

    def _pass_back(self, node: NodeId, message: Renewed) -> None:
        """An answer that nobody waits for, or not any more, is nobody's fault."""
        asked = self._asked.get(node)
        if asked is None or asked.answers >= ANSWERS_MAX or self._clock() - asked.at >= PASS_S:
            return
        asked.answers += 1
        for asker in asked.askers:
            self._send(asker, message)

    def _verified(self, certs: tuple[bytes, ...]) -> Cert:
        """Return what a chain says of a member of this mesh, unless that is out.

        Raises:
            Reject: it is none, or out.
        """
        return trust.verify_chain(certs, self._keys.state.root, self._wall(), self._is_banned)


def _may(peer: Link, capability: Capability) -> bool:
    """Tell whether a peer may be such a one, and understands that it is asked as one."""
    return capability in peer.info.caps and not peer.info.mesh and peer.info.minor >= RENEWALS_SINCE


def _words(cert: Cert) -> tuple[object, ...]:
    return cert.name, cert.owner, cert.caps


def _shorten(known: dict[NodeId, Asked] | dict[NodeId, tuple[float, Cert, tuple[bytes, ...]]]) -> None:
    if len(known) > MEMBERS_MAX:
        del known[next(iter(known))]
