"""However bridges hand a grant on, a worker runs what each of them had to give, and its master is shown just that."""

from itertools import combinations, pairwise

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from p2pq.core.grants import Master, open_grant
from p2pq.errors import Reject
from p2pq.model.ids import LeaseId
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.handing import Handed
from p2pq.wire.messages import HOPS_MAX
from tests.unit.core.workerkit import ANN, IDENTITY, ME, WALL, Member, granted, item, sub_grant

NAMES = ("eve", "fay", "gus")
BRIDGES = [Member(name) for name in NAMES]
COUNTERS = range(5)
parts = st.lists(st.sampled_from(COUNTERS), min_size=1, max_size=len(COUNTERS))


@given(
    whole=st.lists(st.sampled_from(COUNTERS), min_size=1, unique=True),
    given_on=st.lists(parts, min_size=1, max_size=HOPS_MAX),
    narrowing=st.booleans(),
    expiries=st.lists(st.integers(0, 1000), min_size=HOPS_MAX, max_size=HOPS_MAX),
    order=st.permutations(range(HOPS_MAX)),
)
def test_what_is_handed_on_is_a_part_of_a_part(
    whole: list[int], given_on: list[list[int]], narrowing: bool, expiries: list[int], order: list[int]
) -> None:
    chain = [whole]
    for part in given_on:  # most chains at random are broken at once; these hold if each has something left
        chain.append([each for each in chain[-1] if each in part] if narrowing else part)
    assume(all(chain))
    depth = len(given_on)
    receivers = [*BRIDGES[:depth], ME]
    message = granted(tuple(item(each) for each in whole), number=99, to=BRIDGES[0].node, key=b"", expires=WALL + 500)
    subs: list[bytes] = []
    for number, (bridge, to) in enumerate(pairwise(receivers)):
        leases = tuple(LeaseId(1, each) for each in chain[number + 1])
        parent = subs[-1] if subs else message.grant
        fields = {"node": bridge.node, "to": to.node, "signer": bridge, "expires": WALL + expiries[number]}
        subs.append(sub_grant(parent, *leases, number=number, **fields))
    message = msgspec.structs.replace(message, subs=tuple(subs))
    master = Master(
        ANN.node, "ann", ("submit",), msg.MINOR, IDENTITY.mesh, way=tuple(each.node for each in BRIDGES[:depth])
    )
    holds = all(tuple(part) in combinations(before, len(part)) for before, part in pairwise(chain))
    told = [subs[number] for number in order if number < depth]
    assert all(shown(message.grant, whole, told, each, subs) is holds for each in chain[-1])
    try:
        grant = open_grant(message, master, IDENTITY)
    except Reject:
        assert not holds
        return
    assert holds
    assert grant.items == tuple(item(each) for each in chain[-1])
    assert grant.nonce == (depth - 1).to_bytes(16, "big")
    assert grant.expires == WALL + min(500, *expiries[:depth])


def shown(grant: bytes, whole: list[int], told: list[bytes], counter: int, subs: list[bytes]) -> bool:
    """Tell whether the master is shown that a lease came to this node by just these sub-grants."""
    leases = tuple(LeaseId(1, each) for each in whole)
    try:
        handed = Handed(told, IDENTITY.mesh, ANN.node)
        way = handed.way(LeaseId(1, counter), ME.node)
    except Reject:
        return False
    by_these = [step.raw for step in way] == subs
    return by_these and handed.begins(way, sign.digest(grant), BRIDGES[0].node, leases)


@given(
    at=st.integers(0, 10_000),
    bit=st.integers(0, 7),
    where=st.sampled_from(["grant", "first", "second"]),
)
def test_not_a_bit_of_a_chain_can_be_another(at: int, bit: int, where: str) -> None:
    message = granted((item(1), item(2)), number=99, to=BRIDGES[0].node, key=b"")
    outer = sub_grant(
        message.grant, LeaseId(1, 1), LeaseId(1, 2), node=BRIDGES[0].node, to=BRIDGES[1].node, signer=BRIDGES[0]
    )
    inner = sub_grant(outer, LeaseId(1, 2), node=BRIDGES[1].node, signer=BRIDGES[1])
    master = Master(ANN.node, "ann", ("submit",), msg.MINOR, IDENTITY.mesh, way=(BRIDGES[0].node, BRIDGES[1].node))
    chain = {"grant": message.grant, "first": outer, "second": inner}

    def opened(pieces: dict[str, bytes]) -> bool:
        subs = [pieces["first"], pieces["second"]]
        said = msg.Granted(grant=pieces["grant"], subs=tuple(subs))
        told = shown(pieces["grant"], [1, 2], subs, 2, subs)
        try:
            open_grant(said, master, IDENTITY)
        except Reject:
            assert not told
            return False
        assert told
        return True

    assert opened(chain)
    raw = bytearray(chain[where])
    raw[at % len(raw)] ^= 1 << bit
    assert not opened(chain | {where: bytes(raw)})
