import os
import stat
from pathlib import Path

import pytest

from p2pq.daemon.home import Home, write_private
from p2pq.daemon.identity import NodeKeys, load_or_create, login_name, usable_name
from p2pq.errors import ConfigError, RefusedError, Reject, StorageError
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import trust
from p2pq.wire.objects import CAPABILITIES, CERT_LIFE_MS

NOW = Wall(1_800_000_000_000)
DAY = 24 * 3600 * 1000


def home_at(path: Path) -> Home:
    return Home.open(path, environ={"P2PQ_ALLOW_ROOT": "1"})


def load(path: Path, wall: int = NOW, name: str = "ant") -> NodeKeys:
    return load_or_create(home_at(path), name, Wall(wall), os.urandom, owner="ann")


def join(admin: NodeKeys, joiner: NodeKeys, caps: tuple[str, ...] = ("submit", "work"), wall: int = NOW) -> None:
    subject = trust.Subject(node=joiner.node, name=joiner.cert.name, owner="bob", caps=caps)  # type: ignore[arg-type]
    chain = admin.issue(subject, Wall(wall))
    joiner.adopt(name=admin.state.name, root=admin.state.root, certs=chain, psks=admin.state.psks, wall=Wall(wall))


def test_a_first_start_founds_a_mesh_of_one(tmp_path: Path) -> None:
    keys = load(tmp_path / "a")
    assert keys.solo
    assert keys.founder
    assert keys.admin
    identity = keys.core_identity()
    assert (identity.name, identity.owner, identity.caps) == ("ant", "ann", CAPABILITIES)
    assert identity.mesh == keys.mesh
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert modes == {0o600}


def test_a_restart_is_the_same_node_with_a_new_boot_id_and_prekey(tmp_path: Path) -> None:
    first, second = load(tmp_path / "a"), load(tmp_path / "a")
    assert (first.node, first.mesh, first.state.psks) == (second.node, second.mesh, second.state.psks)
    assert first.boot != second.boot
    assert first.prekey != second.prekey
    assert first.static != second.static


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    keys = load(tmp_path / "a")
    identity = keys.core_identity()
    printed = repr([keys, keys.state, keys.key, identity, keys.local((), ""), keys.known_mesh(lambda _: False)])
    for secret in (keys.key.seed, keys.state.psks[0], keys.static, identity.prekey_secret):
        assert repr(secret)[2:-1] not in printed
        assert secret.hex() not in printed


def test_joining_replaces_the_solo_mesh(tmp_path: Path) -> None:
    admin, joiner = load(tmp_path / "a"), load(tmp_path / "b")
    alone = joiner.mesh
    join(admin, joiner)
    assert not admin.solo
    again = load(tmp_path / "b")
    assert again.mesh == admin.mesh != alone
    assert (again.cert.owner, again.cert.caps) == ("bob", ("submit", "work"))
    assert not again.founder
    assert not again.admin
    assert not list((tmp_path / "b" / "mesh").glob("root-*"))
    assert load(tmp_path / "a").state.issued == 1


def test_who_has_other_members_does_not_join(tmp_path: Path) -> None:
    one, two, three = (load(tmp_path / x) for x in "abc")
    join(one, two)
    for keys in (one, two):
        with pytest.raises(RefusedError, match="mesh init"):
            join(three, keys)


def test_a_chain_for_another_node_is_not_adopted(tmp_path: Path) -> None:
    one, two, three = (load(tmp_path / x) for x in "abc")
    subject = trust.Subject(node=two.node, name="x", owner="x", caps=("work",))
    chain = one.issue(subject, NOW)
    before = (tmp_path / "c" / "mesh" / "mesh.state").read_bytes()
    with pytest.raises(Reject, match="not-the-holder"):
        three.adopt(name="x", root=one.state.root, certs=chain, psks=one.state.psks, wall=NOW)
    with pytest.raises(Reject):
        three.adopt(name="x", root=two.state.root, certs=chain, psks=one.state.psks, wall=NOW)
    assert (tmp_path / "c" / "mesh" / "mesh.state").read_bytes() == before


def test_a_founder_makes_admins_an_admin_does_not(tmp_path: Path) -> None:
    one, two, three = (load(tmp_path / x) for x in "abc")
    join(one, two, caps=("admin", "submit", "work"))
    assert two.admin
    assert not two.founder
    with pytest.raises(RefusedError, match="only the founder"):
        join(two, three, caps=("admin",))
    join(two, three)
    assert three.mesh == one.mesh


def test_a_member_issues_nothing(tmp_path: Path) -> None:
    one, two, three = (load(tmp_path / x) for x in "abc")
    join(one, two)
    with pytest.raises(RefusedError, match="not an admin"):
        join(two, three)


def test_a_new_mesh_replaces_the_solo_one(tmp_path: Path) -> None:
    keys = load(tmp_path / "a")
    old = keys.mesh
    keys.found("lab", NOW)
    assert keys.mesh != old
    assert keys.solo
    assert load(tmp_path / "a").state.name == "lab"
    assert len(list((tmp_path / "a" / "mesh").glob("root-*"))) == 1
    with pytest.raises(ConfigError, match="printable"):
        keys.found("a\nb", NOW)


def test_leaving_a_mesh_with_members_keeps_its_root_key(tmp_path: Path) -> None:
    one, two = (load(tmp_path / x) for x in "ab")
    join(one, two)
    one.found("lab", NOW)
    assert len(list((tmp_path / "a" / "mesh").glob("root-*"))) == 2
    two.found("mine", NOW)
    assert two.solo


def test_bans_are_signed_by_admins_only(tmp_path: Path) -> None:
    one, two = (load(tmp_path / x) for x in "ab")
    join(one, two)
    ban = trust.open_ban(one.sign_ban(two.node, NOW, Wall(0), banned=True), one.state.root, NOW)
    assert ban.sub == two.node
    assert two.sign_ban(one.node, NOW, Wall(0), banned=True) == b""
    with pytest.raises(RefusedError, match="ban itself"):
        one.sign_ban(one.node, NOW, Wall(0), banned=True)


def test_certificates_renew(tmp_path: Path) -> None:
    one, two, three = (load(tmp_path / x) for x in "abc")
    join(one, two)
    late = Wall(NOW + CERT_LIFE_MS * 3 // 4)
    assert not two.renewal_due(NOW)
    assert two.renewal_due(late)
    one = load(tmp_path / "a", late)  # the founder renews its own at a start
    assert one.cert.exp > late + CERT_LIFE_MS // 2
    old = two.cert
    assert two.renew(old, late) == (), "it is no admin"
    chain = one.renew(old, late)
    with pytest.raises(Reject, match="wrong-mesh-root"):
        three.renewed(chain, late)
    assert two.renewed(chain, late)
    assert not two.renewed(chain, late)
    assert two.cert.exp > old.exp
    assert (two.cert.name, two.cert.owner, two.cert.caps) == (old.name, old.owner, old.caps)
    assert load(tmp_path / "b", late).cert == two.cert


def test_a_renewal_changes_nothing_else(tmp_path: Path) -> None:
    one, two = (load(tmp_path / x) for x in "ab")
    join(one, two)
    other = one.issue(trust.Subject(node=two.node, name="ant", owner="eve", caps=("submit", "work")), Wall(NOW + DAY))
    with pytest.raises(Reject):
        two.renewed(other, Wall(NOW + DAY))


@pytest.mark.parametrize(("wall", "words"), [(NOW - DAY, "set the clock"), (NOW + 2 * CERT_LIFE_MS, "join again")])
def test_a_members_clock_that_cannot_be_right(tmp_path: Path, wall: int, words: str) -> None:
    one, two = (load(tmp_path / x) for x in "ab")
    join(one, two)
    with pytest.raises(ConfigError, match=words):
        load(tmp_path / "b", wall)
    load(tmp_path / "b", NOW)


@pytest.mark.parametrize("wall", [NOW - DAY, NOW + 2 * CERT_LIFE_MS])
def test_a_founder_mends_its_own_certificate(tmp_path: Path, wall: int) -> None:
    old = load(tmp_path / "a")
    new = load(tmp_path / "a", wall)
    assert old.mesh == new.mesh
    trust.verify_chain(new.state.certs, new.state.root, Wall(wall), is_banned=lambda _: False)


def test_a_founder_takes_a_new_name(tmp_path: Path) -> None:
    load(tmp_path / "a")
    assert load(tmp_path / "a", name="bee").cert.name == "bee"


@pytest.mark.parametrize("damage", [b"", b"x", b"\xff" * 300])
def test_damage_is_named_and_nothing_replaced(tmp_path: Path, damage: bytes) -> None:
    keys = load(tmp_path / "a")
    home = home_at(tmp_path / "a")
    for file in (home.mesh_state, home.root_key(keys.mesh), home.identity_key):
        good = file.read_bytes()
        write_private(file, damage)
        with pytest.raises(ConfigError, match="damaged"):
            load(tmp_path / "a")
        assert file.read_bytes() == damage
        write_private(file, good)
    load(tmp_path / "a")


def test_a_missing_or_foreign_key_is_not_replaced(tmp_path: Path) -> None:
    home = home_at(tmp_path / "a")
    load(tmp_path / "a")
    home.identity_key.unlink()
    with pytest.raises(ConfigError, match="put the file back"):
        load(tmp_path / "a")
    assert not home.identity_key.exists()
    write_private(home.identity_key, os.urandom(32))
    with pytest.raises(ConfigError, match="not the key"):
        load(tmp_path / "a")


def test_a_crash_between_root_and_state_is_survived(tmp_path: Path) -> None:
    first = load(tmp_path / "a")
    home_at(tmp_path / "a").mesh_state.unlink()
    assert load(tmp_path / "a").node == first.node


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (load(tmp_path / x) for x in "ab")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space"):
            join(one, two)
    assert one.state.issued == 0
    assert two.solo


def test_names_are_made_usable() -> None:
    assert usable_name(" a\x1b[31mb\n") == "a[31mb"
    assert usable_name("\n") == "node"
    assert len(usable_name("x" * 100)) == 64
    assert login_name()


def test_a_ban_is_later_than_what_was_said_before_whatever_the_clock_says(tmp_path: Path) -> None:
    one = load(tmp_path / "a")
    for raw in (
        one.sign_ban(NodeId(b"b" * 32), NOW, Wall(NOW + 5), banned=False),
        one.sign_owner_ban("eve", NOW, Wall(NOW + 5), banned=False),
    ):
        word = trust.open_ban(raw, one.state.root, NOW)
        assert (word.at, word.banned) == (NOW + 6, False)


def test_bans_of_owners_are_signed_by_admins_only_and_never_of_the_own_one(tmp_path: Path) -> None:
    one, two = (load(tmp_path / x) for x in "ab")
    join(one, two)
    ban = trust.open_ban(one.sign_owner_ban("eve", NOW, Wall(0), banned=True), one.state.root, NOW)
    assert (ban.owner, ban.iss, ban.banned) == ("eve", one.node, True)
    assert two.sign_owner_ban("eve", NOW, Wall(0), banned=True) == b""
    with pytest.raises(RefusedError, match="cannot ban itself"):
        one.sign_owner_ban(one.cert.owner, NOW, Wall(0), banned=True)
    with pytest.raises(RefusedError, match="printable"):
        one.sign_owner_ban("e\nve", NOW, Wall(0), banned=True)


def test_a_new_mesh_key_is_signed_by_an_admin_and_newer_than_any_known(tmp_path: Path) -> None:
    one, two = (load(tmp_path / x) for x in "ab")
    join(one, two)
    first = trust.open_mesh_key(one.sign_mesh_key(NOW, Wall(0)), one.state.root, NOW)
    ahead = trust.open_mesh_key(one.sign_mesh_key(NOW, Wall(NOW + 5)), one.state.root, NOW)
    assert (first.at, ahead.at, first.iss) == (NOW, NOW + 6, one.node)
    assert len({first.key, ahead.key, *one.state.psks}) == 3
    with pytest.raises(RefusedError, match="not an admin"):
        two.sign_mesh_key(NOW, Wall(0))


def test_links_go_by_the_keys_that_the_core_knows(tmp_path: Path) -> None:
    keys = load(tmp_path / "a")
    newer = (b"n" * 32, *keys.state.psks)
    assert keys.known_mesh(lambda _: False).psks == keys.state.psks == keys.core_identity().psks
    assert keys.known_mesh(lambda _: False, newer).psks == newer
