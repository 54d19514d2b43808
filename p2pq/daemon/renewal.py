"""Certificates that renew themselves: an aging member asks the admin that let it in, as soon as the two are linked."""

import logging
from collections.abc import Callable
from typing import Final

from p2pq.daemon.identity import NodeKeys
from p2pq.daemon.link import Link
from p2pq.errors import Reject, StorageError
from p2pq.model.ids import Wall
from p2pq.wire.messages import Renewed, RenewWant

log = logging.getLogger(__name__)

NOT_KEPT: Final = "renewed-certificate-not-kept"


class Renewals:
    """Both sides of a renewal."""

    def __init__(self, keys: NodeKeys, wall: Callable[[], Wall]) -> None:
        """Take the keys whose certificate is renewed, and which renew those of others."""
        self._keys, self._wall = keys, wall

    def ask(self, peer: Link) -> None:
        """Ask this peer, if it issued our certificate and that has aged."""
        if peer.peer == self._keys.cert.iss and self._keys.renewal_due(self._wall()):
            peer.send(RenewWant(cert=self._keys.state.certs[0]))

    def answer(self, peer: Link, message: RenewWant) -> str | None:
        """Renew a member's certificate; return why not, if not."""
        try:
            peer.send(Renewed(certs=self._keys.renew(peer.peer, message.cert, self._wall())))
        except Reject as error:
            return error.reason
        return None

    def keep(self, message: Renewed) -> str | None:
        """Keep our renewed certificate; return why not, if it is not good or the home is full: it is asked for again."""
        try:
            self._keys.renewed(message.certs, self._wall())
        except Reject as error:
            return error.reason
        except StorageError as error:
            log.warning("certificate.not-kept", extra={"fields": {"reason": str(error)}})
            return NOT_KEPT
        return None
