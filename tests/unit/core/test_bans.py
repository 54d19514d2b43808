"""Who is out, by whose word; and what two nodes know of that, compared."""

from itertools import permutations

import pytest

from p2pq.core import bans as module
from p2pq.core.bans import Bans, row_of
from p2pq.core.records import BanKept
from p2pq.errors import Reject
from p2pq.model.ids import Wall
from p2pq.wire import prims, trust
from tests.unit.core.workerkit import ANN, BOB, WALL, Member, entropy

ROOT = trust.make_root(entropy)
SUBJECT = trust.Subject(node=ANN.node, name="ann", owner="ann", caps=("admin",))
ADMIN = trust.issue_admin(ROOT, SUBJECT, serial=bytes(16), wall=WALL)


def word(who: Member, at: int = 0, *, banned: bool = True, by: prims.SigningKey = ROOT) -> bytes:
    certs = () if by is ROOT else (ADMIN,)
    return trust.issue_ban(by, ROOT.public, who.node, at=Wall(WALL + at), banned=banned, certs=certs)


def knowing(*words: bytes) -> Bans:
    found = Bans(ROOT.public, ())
    for raw in words:
        found.hear(raw, WALL)
        found.check()
    return found


def test_a_node_is_out_by_the_user_or_by_the_latest_word_of_any_admin():
    bans = knowing()
    assert BOB.node not in bans
    bans.ask(BOB.node, banned=True)
    assert BOB.node in bans
    assert bans.hear(word(BOB), WALL).turned is False
    bans.ask(BOB.node, banned=False)
    assert BOB.node in bans
    assert bans.hear(word(BOB, 1, banned=False), WALL).turned is True
    assert BOB.node not in bans
    assert bans.hear(word(BOB, by=ANN.signer), WALL).turned is True
    assert bans.hear(word(BOB), WALL) is None
    assert bans.hear(word(BOB, 1, banned=False), WALL) is None


def test_only_the_latest_word_of_each_admin_is_passed_on():
    assert knowing(word(BOB), word(BOB, 1), word(BOB, by=ANN.signer)).signed == (word(BOB, 1), word(BOB, by=ANN.signer))


def test_nodes_that_heard_of_the_same_words_agree_in_whatever_order():
    words = (word(BOB), word(BOB, 1, banned=False), word(BOB, 1), word(BOB, by=ANN.signer), word(ANN))
    found = [knowing(*order) for order in permutations(words)]
    assert len({(bans.head, bans.digests, BOB.node in bans) for bans in found}) == 1


def test_a_head_says_whether_two_know_the_same():
    one, two = knowing(word(BOB)), knowing(word(BOB), word(ANN))
    assert knowing().head != one.head != two.head
    assert two.beyond(one.digests) == (word(ANN),)
    assert one.beyond(two.digests) == ()
    one.hear(word(ANN), WALL)
    assert one.head == two.head


def test_what_was_kept_is_taken_up_and_void_rows_are_not():
    rows = (
        BanKept(node=BOB.node, banned=True, issuer=ROOT.public, signed=word(BOB, trust.SKEW_MS * 9)),
        BanKept(node=ANN.node, banned=True),
        BanKept(node=ROOT.public, banned=True, issuer=b"void"),
    )
    bans = Bans(ROOT.public, rows)
    assert [node in bans for node in (BOB.node, ANN.node, ROOT.public)] == [True, True, False]
    with pytest.raises(Reject):
        Bans(ROOT.public, (BanKept(node=BOB.node, banned=True, signed=b"x"),))


def test_a_ban_of_an_owner_is_about_its_name():
    raw = trust.issue_ban(ROOT, ROOT.public, "bob", at=Wall(WALL + 4))
    bans = knowing(raw, word(ANN))
    assert [who in bans for who in ("bob", BOB.node, ANN.node)] == [True, False, True]
    assert [bans.is_of_node(each) for each in (raw, word(ANN))] == [False, True]
    assert [bans.said_at(ROOT.public, who) for who in ("bob", ANN.node, "ann")] == [WALL + 4, WALL, 0]
    rows = (row_of("bob", banned=True, issuer=ROOT.public, signed=raw), row_of("eve", banned=True))
    again = Bans(ROOT.public, rows)
    assert [who in again for who in ("bob", "eve")] == [True, True]


def test_bans_are_bounded_but_a_known_one_may_change(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BANS_MAX", 1)
    bans = knowing(word(BOB))
    assert bans.full
    with pytest.raises(Reject, match="too many"):
        bans.hear(word(ANN), WALL)
    assert bans.hear(word(BOB, 1, banned=False), WALL).turned
