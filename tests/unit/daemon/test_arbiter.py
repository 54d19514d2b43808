from types import SimpleNamespace
from typing import Any

import pytest

from p2pq.daemon import arbiter
from p2pq.daemon.arbiter import Arbiter
from p2pq.daemon.dialing import ALREADY, FULL
from p2pq.model.ids import NodeId
from p2pq.wire import session

SMALL, LARGE, BRIDGE = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))


def info(node: NodeId, boot: bytes = b"b") -> Any:
    return SimpleNamespace(node=node, boot=boot)


def standing(
    node: NodeId, *, dialled: bool, boot: bytes = b"b", up_at: float = 0, path: tuple[NodeId, ...] = ()
) -> Any:
    return SimpleNamespace(info=info(node, boot), dialled=dialled, up_at=up_at, path=path)


def test_who_has_a_link_does_not_finish_another() -> None:
    judge = Arbiter(SMALL, 9)
    assert judge.may_finish(info(LARGE), None)
    assert not judge.may_finish(info(LARGE), standing(LARGE, dialled=True))
    assert not judge.may_finish(info(LARGE), standing(LARGE, dialled=False))
    assert judge.may_finish(info(LARGE, b"new"), standing(LARGE, dialled=False))  # it has restarted
    judge.dialling.add(LARGE)
    assert not judge.may_finish(info(LARGE), None)


@pytest.mark.parametrize(("me", "peer", "refused"), [(SMALL, LARGE, ALREADY), (LARGE, SMALL, None)])
def test_of_two_dials_the_smaller_ones_stays(me: NodeId, peer: NodeId, refused: str | None) -> None:
    judge = Arbiter(me, 9)
    judge.dialling.add(peer)
    assert judge.why_not(info(peer), None, 0, 0) == refused
    judge.dialling.clear()
    assert judge.why_not(info(peer), standing(peer, dialled=True), 1, 5) == refused
    # A link that has stood for long was not part of it; its other end must have lost it.
    assert judge.why_not(info(peer), standing(peer, dialled=True), 1, 50) is None
    assert judge.why_not(info(peer), standing(peer, dialled=False), 1, 5) is None
    assert judge.why_not(info(peer, b"new"), standing(peer, dialled=True), 1, 5) is None


@pytest.mark.parametrize("me", [SMALL, LARGE])
@pytest.mark.parametrize("dialled", [True, False])
def test_a_direct_link_takes_the_place_of_one_that_a_bridge_carries(me: NodeId, *, dialled: bool) -> None:
    peer = LARGE if me == SMALL else SMALL
    judge = Arbiter(me, 1)
    relayed = standing(peer, dialled=dialled, path=(BRIDGE,))
    assert judge.may_finish(info(peer), relayed)
    assert not judge.may_finish(info(peer), relayed, direct=False)
    assert judge.why_not(info(peer), relayed, 1, 5) is None


def test_a_link_that_a_bridge_carries_takes_no_place_of_a_direct_one() -> None:
    """Who dials looks first; a message 3 says that the direct one is dead, unless both dial at the same time."""
    judge = Arbiter(SMALL, 1)
    direct = standing(LARGE, dialled=True)
    assert not judge.may_finish(info(LARGE), direct, direct=False)
    assert judge.why_not(info(LARGE), direct, 1, 5, direct=False) == ALREADY
    assert judge.why_not(info(LARGE), direct, 1, 50, direct=False) is None


def test_of_two_that_a_bridge_carries_the_smaller_ones_stays() -> None:
    relayed = standing(LARGE, dialled=True, path=(BRIDGE,))
    assert Arbiter(SMALL, 9).why_not(info(LARGE), relayed, 1, 5, direct=False) == ALREADY
    relayed = standing(SMALL, dialled=True, path=(BRIDGE,))
    assert Arbiter(LARGE, 9).why_not(info(SMALL), relayed, 1, 5, direct=False) is None


def test_no_more_links_than_allowed() -> None:
    judge = Arbiter(SMALL, 2)
    assert judge.why_not(info(LARGE), None, 1, 0) is None
    assert judge.why_not(info(LARGE), None, 2, 0) == FULL
    assert judge.why_not(info(LARGE), standing(LARGE, dialled=False), 2, 0) is None


def test_two_copies_of_a_home_take_turns() -> None:
    judge = Arbiter(SMALL, 9)
    judge.began(info(LARGE, b"one"))
    judge.began(info(LARGE, b"one"))
    assert judge.why_not(info(LARGE, b"one"), None, 0, 0) is None
    judge.began(info(LARGE, b"two"))
    assert judge.why_not(info(LARGE, b"two"), None, 0, 0) is None
    assert judge.why_not(info(LARGE, b"one"), None, 0, 0) == session.DUPLICATE_KEY


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arbiter, "PEERS_KEPT", 3)
    judge = Arbiter(SMALL, 9)
    for number in range(10):
        judge.began(info(NodeId(bytes([number]) * 32)))
        for boot in range(20):
            judge.began(info(LARGE, bytes([boot])))
    assert len(judge._boots) == 3
    assert len(judge._boots[LARGE]) == arbiter.BOOTS_KEPT
