"""What admins have said of this mesh, as a node starts with it."""

from p2pq.core.records import BanKept, MeshKeysKept, OwnerBanKept, Restored
from p2pq.daemon.inheriting import of_mesh
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import prims, trust

WALL = Wall(1_700_000_000_000)
ROOT, LEFT = prims.SigningKey(b"r" * 32), prims.SigningKey(b"l" * 32)
ANN, BOB, CAT = (NodeId(letter * 32) for letter in (b"a", b"b", b"c"))


def ban(node: NodeId, root: prims.SigningKey = ROOT, at: int = WALL) -> bytes:
    return trust.issue_ban(root, root.public, node, at=Wall(at))


def key(root: prims.SigningKey, at: int = WALL) -> bytes:
    return trust.issue_mesh_key(root, root.public, b"k" * 32, at=Wall(at))


def kept(node: NodeId, signed: bytes, root: prims.SigningKey = ROOT) -> BanKept:
    return BanKept(node=node, banned=True, issuer=root.public, signed=signed)


def test_what_is_of_this_mesh_stays_and_nothing_is_written():
    restored = Restored(bans=(kept(ANN, ban(ANN)), BanKept(node=BOB, banned=True)), mesh_keys=(key(ROOT),))
    assert of_mesh(restored, ROOT.public, WALL) == (restored, ())


def test_the_words_of_a_mesh_that_was_left_are_void_there_and_in_the_store():
    restored = Restored(bans=(kept(ANN, ban(ANN, LEFT), LEFT),), mesh_keys=(key(ROOT), key(LEFT)))
    assert of_mesh(restored, ROOT.public, WALL) == (
        Restored(mesh_keys=(key(ROOT),)),
        (BanKept(node=ANN, banned=False, issuer=LEFT.public), MeshKeysKept(signed=(key(ROOT),))),
    )


def test_bans_of_owners_are_treated_alike():
    word, foreign, late = (
        trust.issue_ban(root, root.public, "eve", at=Wall(at))
        for root, at in ((ROOT, WALL), (LEFT, WALL), (ROOT, WALL + 10 * trust.SKEW_MS))
    )
    own = OwnerBanKept(owner="eve", banned=True, issuer=ROOT.public, signed=word)
    left = OwnerBanKept(owner="eve", banned=True, issuer=LEFT.public, signed=foreign)
    assert of_mesh(Restored(owner_bans=(own, left)), ROOT.public, WALL) == (
        Restored(owner_bans=(own,)),
        (OwnerBanKept(owner="eve", banned=False, issuer=LEFT.public),),
    )
    early = Restored(owner_bans=(OwnerBanKept(owner="eve", banned=True, issuer=ROOT.public, signed=late),))
    held = Restored(owner_bans=(OwnerBanKept(owner="eve", banned=True),))
    assert of_mesh(early, ROOT.public, WALL) == (held, ())
    assert of_mesh(Restored(), ROOT.public, WALL, (word,)) == (Restored(owner_bans=(own,)), (own,))


def test_a_clock_that_was_set_back_ends_neither_a_ban_nor_a_key():
    late = WALL + 10 * trust.SKEW_MS
    restored = Restored(bans=(kept(ANN, ban(ANN, at=late)),), mesh_keys=(key(ROOT, late),))
    held = Restored(bans=(BanKept(node=ANN, banned=True),), mesh_keys=(key(ROOT, late),))
    assert of_mesh(restored, ROOT.public, WALL) == (held, ())


def test_what_a_join_told_holds_and_is_written():
    told = kept(CAT, ban(CAT))
    found = of_mesh(Restored(), ROOT.public, WALL, (ban(CAT), b"not a ban", ban(ANN, LEFT)))
    assert found == (Restored(bans=(told,)), (told,))
