"""Which leaf holds which lease."""

import pytest

from p2pq.core.tenants import Placed, Tenants
from p2pq.model.ids import LeaseId, Mono, NodeId
from p2pq.wire.messages import Beat

LEA, LEO = NodeId(b"a" * 32), NodeId(b"o" * 32)
ONE, TWO = LeaseId(1, 1), LeaseId(1, 2)


def placed(lease: LeaseId, leaf: NodeId) -> Placed:
    return Placed(lease, leaf, None, Mono(0.0), Mono(0.0))


def test_leases_are_found_by_lease_and_by_leaf() -> None:
    tenants = Tenants()
    one, two = placed(ONE, LEA), placed(TWO, LEO)
    tenants.add(one)
    tenants.add(two)
    tenants.check()
    assert (len(tenants), list(tenants), tenants.leases()) == (2, [one, two], (ONE, TWO))
    assert tenants.get(ONE) is one
    assert tenants.of(LEA, ONE) is one
    assert tenants.of(LEO, ONE) is None
    assert tenants.of(LEO, LeaseId(1, 3)) is None
    assert tenants.held(LEO) == [two]
    assert tenants.remove(TWO) is two
    assert tenants.remove(TWO) is None
    assert tenants.held(LEO) == []
    tenants.check()


def test_a_leaf_may_hold_several() -> None:
    tenants = Tenants()
    tenants.add(placed(ONE, LEA))
    tenants.add(placed(TWO, LEA))
    tenants.remove(ONE)
    assert [each.lease for each in tenants.held(LEA)] == [TWO]
    tenants.check()


def test_nobody_is_given_what_another_holds() -> None:
    tenants = Tenants()
    tenants.add(placed(ONE, LEA))
    with pytest.raises(AssertionError, match="placed twice"):
        tenants.add(placed(ONE, LEO))


def test_only_news_are_news() -> None:
    one = placed(ONE, LEA)
    assert not one.hear(Beat(ONE, running=False))
    assert one.hear(Beat(ONE))
    assert one.hear(Beat(ONE, progress=10))
    assert not one.hear(Beat(ONE, running=False))
    assert one.beat == Beat(ONE, True, 10)
