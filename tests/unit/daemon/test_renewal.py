"""Renewed certificates that cannot be kept: the link and the node go on."""

from p2pq.daemon.renewal import NOT_KEPT, Renewals
from p2pq.errors import StorageError
from p2pq.wire.messages import Renewed


class FullHome:
    def renewed(self, _certs, _wall):
        raise StorageError("no space left")


def test_a_renewed_certificate_that_does_not_fit_on_the_disk_ends_nothing():
    assert Renewals(FullHome(), lambda: 0).keep(Renewed(certs=(b"x",))) == NOT_KEPT
