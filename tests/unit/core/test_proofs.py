"""What shows that a lease was given to whom."""

import pytest

from p2pq.core import proofs
from p2pq.core.proofs import pack, proven
from p2pq.model.ids import LeaseId
from p2pq.wire import sign
from tests.unit.core.stockkit import ANN, LEA, LEO, granted, handed
from tests.unit.core.workerkit import IDENTITY, ME, Member, item

CAT, DOG = Member("cat"), Member("dog")
"""Bridges."""
ONE, TWO, THREE = (item(number).lease for number in (1, 2, 3))
GRANT = granted((item(1), item(2)), to=CAT.node).grant


def sub(by: Member, to: Member, parent: bytes, *leases: LeaseId, **fields) -> bytes:
    return handed(to, *leases, by=by, parent=sign.digest(parent), **fields)


DOWN = sub(CAT, DOG, GRANT, ONE, TWO)
LAST = sub(DOG, LEA, DOWN, TWO)


def shows(*shown: bytes, to: Member = LEA) -> dict[LeaseId, tuple[bytes, ...]]:
    return proven(shown, ANN.node, IDENTITY, lambda node: node == to.node)


def test_a_lease_went_from_its_master_over_bridges_to_its_leaf() -> None:
    assert shows(GRANT, DOWN, LAST) == {TWO: (GRANT, DOWN, LAST)}
    assert shows(GRANT, DOWN, LAST, to=LEO) == {}
    assert shows(GRANT, DOWN, LAST, to=CAT) == {ONE: (GRANT,), TWO: (GRANT,)}
    own = granted((item(1),), to=LEA.node).grant
    assert shows(own) == {ONE: (own,)}, "it had a link of its own to the master"


def test_what_this_very_bridge_gave_needs_no_grant() -> None:
    mine = sub(ME, DOG, GRANT, ONE, TWO)
    last = sub(DOG, LEA, mine, TWO)
    assert shows(mine, last) == {TWO: (mine, last)}
    assert shows(handed(LEA, ONE)) == {ONE: (handed(LEA, ONE),)}


@pytest.mark.parametrize(
    "shown",
    [
        (b"x",),
        (DOWN, LAST),
        (LAST, DOWN, GRANT),
        (GRANT, LAST),
        (granted((item(1), item(2)), to=CAT.node, signer=LEO).grant, DOWN, LAST),
        (granted((item(1),), to=LEA.node, mesh=b"o" * 32).grant,),
        (granted((item(1),), to=LEA.node, node=LEO.node).grant,),
        (GRANT, sub(DOG, LEA, GRANT, ONE)),
        (GRANT, sub(CAT, LEA, GRANT, THREE)),
        (GRANT, sub(CAT, LEA, GRANT, TWO, ONE)),
        (GRANT, sub(CAT, LEA, GRANT, ONE, ONE)),
        (handed(LEA, ONE, ONE),),
        (handed(LEA, ONE, mesh=b"o" * 32),),
        (handed(LEA, ONE, master=LEO.node),),
        (GRANT, sub(CAT, LEA, GRANT, ONE, mesh=b"o" * 32)),
        (GRANT, sub(CAT, LEA, GRANT, ONE, master=LEO.node)),
        (GRANT, sub(CAT, LEA, b"another", ONE)),
        (GRANT, handed(LEA, ONE, by=LEO, node=CAT.node, parent=sign.digest(GRANT))),
        (handed(LEA, ONE, by=LEA),),
        (handed(LEA, ONE, by=LEO, node=ME.node),),
    ],
)
def test_what_does_not_go_from_receiver_to_receiver_shows_nothing(shown: tuple[bytes, ...]) -> None:
    assert shows(*shown) == {}


def test_each_is_shown_once_after_what_it_builds_on_and_no_more_than_can_be_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = (b"grant", b"sub")
    assert pack([(GRANT, DOWN), (GRANT, DOWN, LAST), (), other]) == (GRANT, DOWN, LAST, *other)
    assert pack([(bytes(proofs.PROOF_BYTES_MAX + 1),), other]) == other
    monkeypatch.setattr(proofs, "PROOFS_MAX", 3)
    assert pack([(GRANT, DOWN), other]) == (GRANT, DOWN)
    monkeypatch.setattr(proofs, "PROOFS_BYTES_MAX", len(GRANT) + len(DOWN))
    assert pack([(GRANT, DOWN), (GRANT, LAST), other]) == (GRANT, DOWN)
