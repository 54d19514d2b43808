"""The keys of the mesh: which is the newest, and which still count."""

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pq.core.meshkeys import KEPT_MAX, MeshKeys
from p2pq.errors import Reject
from p2pq.model.ids import Wall
from p2pq.wire import prims, trust
from tests.unit.core.workerkit import ANN, IDENTITY, WALL, entropy

ROOT = trust.make_root(entropy)
JOINED = (b"j" * 32,)
MINE = msgspec.structs.replace(IDENTITY, root=ROOT.public, mesh=prims.mesh_id(ROOT.public), psks=JOINED)


def key(number: int, at: int | None = None) -> bytes:
    """Return a signed key; without a date the number is its date."""
    return trust.issue_mesh_key(ROOT, ROOT.public, name(number), at=Wall(WALL + (number if at is None else at)))


def name(number: int) -> bytes:
    return number.to_bytes(32, "big")


def heard(*keys: bytes) -> MeshKeys:
    found = MeshKeys(MINE, ())
    for raw in keys:
        found.hear(raw, WALL, trust.nobody)
        found.check()
    return found


def test_the_newest_is_used_and_those_before_still_count():
    keys = heard()
    assert (keys.psks, keys.signed, keys.newest_at) == (JOINED, (), 0)
    assert keys.hear(key(1), WALL, trust.nobody).key == name(1)
    assert keys.hear(key(2), WALL, trust.nobody).key == name(2)
    assert keys.psks == (name(2), name(1), *JOINED)
    assert keys.signed == (key(2), key(1))
    assert keys.newest_at == WALL + 2
    assert keys.hear(key(1), WALL, trust.nobody) is None


def test_only_the_latest_count_and_an_older_one_is_no_news():
    keys = heard(*(key(number) for number in range(2, KEPT_MAX + 2)))
    assert len(keys.psks) == KEPT_MAX
    assert JOINED[0] not in keys.psks
    assert keys.hear(key(1), WALL, trust.nobody) is None
    assert keys.psks[-1] == name(2)


def test_keys_that_came_with_the_membership_are_not_counted_twice():
    mine = msgspec.structs.replace(MINE, psks=(name(2), name(1)))
    assert MeshKeys(mine, (key(2),)).psks == (name(2), name(1))


def test_a_key_that_is_signed_again_counts_by_its_latest_date():
    again = key(1, at=9)
    assert heard(key(1), key(2), again).signed == heard(again, key(1), key(2)).signed == (again, key(2))


def test_what_a_restart_gives_back_is_what_was_known_whatever_the_clock_says():
    late = key(1, at=trust.SKEW_MS * 10)
    assert MeshKeys(MINE, (late,)).psks == (name(1), *JOINED)
    with pytest.raises(Reject):
        MeshKeys(MINE, (b"x",))


@pytest.mark.parametrize(("raw", "reason"), [(b"x", "malformed"), (key(1, at=trust.SKEW_MS + 1), trust.NOT_YET_VALID)])
def test_a_key_that_does_not_verify_is_refused(raw: bytes, reason: str):
    keys = heard()
    with pytest.raises(Reject, match=reason):
        keys.hear(raw, WALL, trust.nobody)
    assert keys.psks == JOINED


def test_a_key_of_a_banned_admin_is_refused():
    subject = trust.Subject(node=ANN.node, name="ann", owner="ann", caps=("admin",))
    admin = trust.issue_admin(ROOT, subject, serial=bytes(16), wall=WALL)
    raw = trust.issue_mesh_key(ANN.signer, ROOT.public, name(1), at=WALL, certs=(admin,))
    keys = heard()
    with pytest.raises(Reject, match=trust.BANNED):
        keys.hear(raw, WALL, lambda cert: cert.owner == "ann")
    assert keys.hear(raw, WALL, trust.nobody).iss == ANN.node


def test_two_keys_of_one_moment_have_one_order():
    pair = [key(1, at=5), key(2, at=5), key(3, at=5)]
    assert len({heard(*order).signed for order in permutations(pair)}) == 1


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=14).flatmap(
        lambda told: st.tuples(st.just(told), st.permutations(told), st.integers(0, len(told)))
    )
)
def test_nodes_that_heard_of_the_same_keys_agree_in_whatever_order_and_over_whomever(told):
    """Some hear each one, others only what a third still keeps of them."""
    one, other, cut = told
    keys = [key(number, at) for number, at in one]
    behind = heard(*keys[:cut])
    meets = heard(*keys[cut:])
    assert heard(*keys).signed == heard(*(key(number, at) for number, at in other)).signed
    assert heard(*behind.signed, *meets.signed).signed == heard(*keys).signed
