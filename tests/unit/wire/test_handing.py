"""How a lease came to whom: ways that hold, and each thing that breaks one."""

import pytest

from p2pq.errors import Reject
from p2pq.model.ids import LeaseId
from p2pq.wire import codec, handing, prims, sign
from p2pq.wire.handing import Handed, narrows
from p2pq.wire.objects import ITEMS_MAX, SubGrant
from p2pq.wire.work import HOPS_MAX, SUB_BYTES_MAX, SUBS_BYTES_MAX
from tests.unit.wire.makers import ALICE, BOB, secret

MESH, MASTER = b"m" * 32, b"M" * 32
GRANT = b"g" * 32
"""Its digest."""
BRIDGES = [prims.SigningKey(secret(f"bridge {number}")) for number in range(HOPS_MAX + 1)]
FIRST, SECOND = BRIDGES[:2]


def lease(*counters: int) -> tuple[LeaseId, ...]:
    return tuple(LeaseId(1, counter) for counter in counters)


ONE, TWO, THREE = lease(1, 2, 3)


def sub(bridge, to, parent: bytes, *leases: LeaseId, signer=None, **fields) -> bytes:
    plain = {
        "mesh": MESH,
        "node": bridge.public,
        "master": MASTER,
        "to": to.public,
        "parent": parent if len(parent) == 32 else sign.digest(parent),
        "nonce": bytes(16),
        "leases": leases,
        "expires": 1,
    }
    return sign.sign(signer or bridge, SubGrant(**(plain | fields)))


OUTER = sub(FIRST, SECOND, GRANT, ONE, TWO, THREE)
INNER = sub(SECOND, ALICE, OUTER, ONE, THREE)
DIRECT = sub(FIRST, BOB, GRANT, TWO)


def handed(*subs: bytes) -> Handed:
    return Handed(subs, MESH, MASTER)


def way(subs: Handed, name: LeaseId, by=ALICE) -> list[bytes]:
    return [step.raw for step in subs.way(name, by.public)]


def test_a_way_is_found_whatever_the_order_and_whatever_else_there_is() -> None:
    for subs in ((OUTER, INNER, DIRECT), (DIRECT, INNER, OUTER, INNER)):
        found = handed(*subs)
        assert way(found, ONE) == way(found, THREE) == [OUTER, INNER]
        assert way(found, TWO, BOB) == [DIRECT]
        assert way(found, TWO) == way(found, ONE, BOB) == [], "nothing is told of it"
    assert way(handed(), ONE) == []


def test_a_way_begins_with_the_grant_that_it_names_and_with_no_other() -> None:
    found = handed(OUTER, INNER)
    steps = found.way(ONE, ALICE.public)
    given = lease(1, 2, 3, 4)
    assert found.begins(steps, GRANT, FIRST.public, given)
    assert found.begins(steps, GRANT, FIRST.public, given), "as was found before"
    assert not found.begins(steps, b"x" * 32, FIRST.public, given)
    assert not handed(OUTER, INNER).begins(steps, GRANT, SECOND.public, given)
    assert not handed(OUTER, INNER).begins(steps, GRANT, FIRST.public, given[:2])
    assert not handed(OUTER, INNER).begins(steps, GRANT, FIRST.public, given[::-1])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (sub(FIRST, ALICE, GRANT, ONE, signer=SECOND), "bad signature"),
        (sub(FIRST, ALICE, GRANT, ONE, mesh=b"x" * 32), "not of this master"),
        (sub(FIRST, ALICE, GRANT, ONE, master=b"x" * 32), "not of this master"),
        (OUTER[:-1] + bytes([OUTER[-1] ^ 1]), "bad signature"),
        (b"junk", "malformed"),
        (bytes(SUB_BYTES_MAX + 1), "too long"),
    ],
)
def test_what_no_honest_bridge_passes_on_spoils_the_message(raw: bytes, reason: str) -> None:
    with pytest.raises(Reject, match=reason):
        handed(OUTER, raw)


@pytest.mark.parametrize(
    "inner",
    [
        sub(SECOND, ALICE, OUTER, *lease(1, 4)),
        sub(SECOND, ALICE, OUTER, THREE, ONE),
        sub(SECOND, ALICE, OUTER, ONE, ONE),
        sub(FIRST, ALICE, OUTER, ONE),
        sub(BOB, ALICE, OUTER, ONE),
    ],
    ids=["more", "in another order", "twice", "by the one above", "by somebody else"],
)
def test_nobody_hands_on_what_it_did_not_have(inner: bytes) -> None:
    found = handed(OUTER, inner)
    for _ in ("found out", "and remembered"):
        with pytest.raises(Reject, match="wider than the one above"):
            found.way(ONE, ALICE.public)
    assert way(found, TWO) == [], "others are not harmed"


def test_one_that_begins_a_way_names_each_lease_once() -> None:
    with pytest.raises(Reject, match="wider"):
        handed(sub(FIRST, ALICE, GRANT, ONE, ONE)).way(ONE, ALICE.public)


def test_a_way_has_so_many_bridges_at_most() -> None:
    chain = [OUTER]
    for bridge, to in zip(BRIDGES[1:], [*BRIDGES[2:], ALICE], strict=True):
        chain.append(sub(bridge, to, chain[-1], ONE))
    with pytest.raises(Reject, match="over too many bridges"):
        handed(*chain).way(ONE, ALICE.public)
    assert way(handed(*chain[1:]), ONE) == chain[1:]


def test_of_two_for_one_lease_the_first_counts() -> None:
    other = sub(BOB, ALICE, GRANT, ONE)
    assert way(handed(INNER, OUTER, other), ONE) == [OUTER, INNER]
    assert way(handed(other, INNER, OUTER), ONE) == [other]


def test_they_are_bounded() -> None:
    longest = sub(FIRST, ALICE, GRANT, *(LeaseId((1 << 53) - 1, (1 << 53) - 1 - number) for number in range(ITEMS_MAX)))
    assert len(longest) <= SUB_BYTES_MAX
    assert HOPS_MAX * len(longest) <= SUBS_BYTES_MAX, "a result comes with all that there can be"
    many = SUBS_BYTES_MAX // len(longest)
    assert way(handed(*[longest] * many), LeaseId((1 << 53) - 1, (1 << 53) - 1)) == [longest]
    with pytest.raises(Reject, match="too many"):
        handed(*[longest] * (many + 1))


def test_what_was_verified_is_not_verified_again() -> None:
    handing.open_step.cache_clear()
    for _ in range(3):
        assert way(handed(OUTER, INNER), ONE) == [OUTER, INNER]
    assert handing.open_step.cache_info().misses == 2


def test_the_bytes_are_kept_as_they_came() -> None:
    step = handing.open_step(OUTER, MESH, MASTER)
    assert (step.raw, step.digest, step.sub.leases) == (OUTER, sign.digest(OUTER), (ONE, TWO, THREE))
    assert codec.encode(step.sub) in OUTER


def test_some_of_them_in_order() -> None:
    assert narrows(lease(1, 2, 3), lease(1, 3))
    assert narrows(lease(1, 2, 3), ())
    for part in (lease(2, 1), lease(1, 1), lease(1, 4), lease(4)):
        assert not narrows(lease(1, 2, 3), part)
