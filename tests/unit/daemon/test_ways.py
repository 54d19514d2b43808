"""Whom to ask for blobs."""

import pytest

from p2pq.daemon.blobasks import PeerLink
from p2pq.daemon.ways import Bridges, Way
from p2pq.model.ids import NodeId

HOLDER, FIRST, SECOND, FAR = (NodeId(bytes([number]) * 32) for number in range(4))


def link(bridge: NodeId | None = None) -> PeerLink:
    return PeerLink(dialled=True, host="10.0.0.1", url="http://10.0.0.1:1/", bridge=bridge)


NEAR = {FIRST: link(), SECOND: link()}
LEAD = Bridges(ways=lambda _: (SECOND, FIRST))


def test_a_linked_holder_is_asked_itself() -> None:
    assert LEAD.way({**NEAR, HOLDER: link()}, HOLDER, FIRST, {}) == Way(HOLDER)
    assert Way(HOLDER).bridge is None


def test_of_the_bridges_to_a_holder_the_best_is_asked() -> None:
    assert LEAD.way({**NEAR, HOLDER: link(FIRST)}, HOLDER, None, {}) == Way(SECOND, source=HOLDER)
    assert Way(SECOND, source=HOLDER).bridge == SECOND


def test_who_has_brought_nothing_least_often_is_asked() -> None:
    assert LEAD.way({**NEAR, HOLDER: link(FIRST)}, HOLDER, None, {SECOND: 1}) == Way(FIRST, source=HOLDER)
    assert LEAD.way({**NEAR, HOLDER: link(FIRST)}, HOLDER, None, {SECOND: 1, FIRST: 2}) == Way(SECOND, source=HOLDER)


def test_the_carrier_is_asked_where_no_way_is_known() -> None:
    assert Bridges().way({**NEAR, HOLDER: link(FIRST)}, HOLDER, None, {}) == Way(FIRST, source=HOLDER)


@pytest.mark.parametrize("through", [None, SECOND])
def test_who_speaks_for_a_holder_is_asked_first(through: NodeId | None) -> None:
    speaks = Bridges(speaks={HOLDER: FIRST}.get, ways=lambda _: (SECOND,))
    assert speaks.way(NEAR, HOLDER, through, {}) == Way(FIRST, source=HOLDER)
    assert speaks.way(NEAR, HOLDER, through, {FIRST: 1}) == Way(SECOND, source=HOLDER)


def test_who_spoke_for_it_is_asked_where_nobody_does_any_more() -> None:
    assert Bridges().way(NEAR, HOLDER, SECOND, {}) == Way(SECOND, source=HOLDER)


def test_nothing_leads_over_who_is_not_linked_without_a_bridge_between() -> None:
    assert Bridges(speaks={HOLDER: FAR}.get).way({**NEAR, FAR: link(FIRST)}, HOLDER, None, {}) is None
    assert LEAD.way({}, HOLDER, FIRST, {}) is None
    assert Bridges().way(NEAR, HOLDER, None, {}) is None


@pytest.mark.parametrize("links", [{**NEAR, HOLDER: link()}, {**NEAR, HOLDER: link(FIRST)}, NEAR])
def test_a_bridge_gets_for_a_peer_what_a_holder_has_that_is_linked_or_spoken_for(links: dict[NodeId, PeerLink]) -> None:
    bridges = Bridges(serves=True, speaks={HOLDER: FIRST}.get)
    assert bridges.gets(links, SECOND, HOLDER)
    assert not bridges.gets(links, HOLDER, HOLDER)
    assert not Bridges(speaks={HOLDER: FIRST}.get).gets(links, SECOND, HOLDER), "it is none"


@pytest.mark.parametrize("links", [{**NEAR, HOLDER: link(FIRST)}, NEAR])
def test_nothing_is_got_by_way_of_who_asks_or_from_who_is_not_known(links: dict[NodeId, PeerLink]) -> None:
    assert not Bridges(serves=True, speaks={HOLDER: FIRST}.get).gets(links, FIRST, HOLDER)
    assert not Bridges(serves=True).gets(NEAR, FIRST, HOLDER)
