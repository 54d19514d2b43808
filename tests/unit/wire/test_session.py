"""The link handshake: who gets in, who does not and why, and the records after it."""

import msgspec
import pytest

from p2pq.errors import HandshakeError, LocalProtocolError, Reject
from p2pq.model.ids import Wall
from p2pq.wire import codec, frames, noise, prims, session, sign, trust
from tests.unit.wire.makers import (
    ADMIN,
    ALICE,
    BOB,
    DAY_MS,
    OTHER_ROOT,
    PSK,
    ROOT,
    WALL,
    admin_cert,
    entropy,
    handshake,
    local,
    member_certs,
    mesh,
    secret,
)
from tests.vectors import rfc

MESH = prims.mesh_id(ROOT.public)


def refusal(call):
    with pytest.raises(session.HandshakeRefused) as caught:
        call()
    assert isinstance(caught.value, HandshakeError)
    assert str(caught.value) == session.SENTENCES[caught.value.reason]
    return caught.value


def dial(who=None, our_mesh=None, wall=WALL, responder=None):
    """Let somebody dial bob and return why bob refuses."""
    other = responder or session.Responder(local(BOB, "bob"), our_mesh or mesh(), entropy("answer"))
    dialler = session.Initiator(who or local(), mesh(), entropy("dial"))

    def run():
        third = dialler.receive(other.receive(dialler.start(), wall), Wall(WALL))
        other.receive(third, wall)

    return refusal(run)


def hello(key=ALICE, *, role=b"initiator", mesh_id=MESH, static="alice static", **changes):
    """An introduction as its author could make it."""
    xpub, prekey = prims.x25519_public(secret(static)), b"p" * 32
    fields = {
        "v": 1,
        "node": key.public,
        "sig": key.sign(sign.pae(b"link-static", mesh_id, role, xpub, prekey)),
        "certs": member_certs(),
        "boot": b"b" * 16,
        "minor": 1,
        "prekey": prekey,
        "wall": WALL,
    } | changes
    return msgspec.msgpack.encode({k: v for k, v in fields.items() if v is not None})


def introduce(payload, *, psk=PSK, prologue=None, static="alice static"):
    """Run the handshake with bob by hand, sending any bytes as introduction; return why bob refuses."""
    by_hand = noise.HandshakeState(
        "initiator", prologue or session.prologue(MESH), psk, s=secret(static), e=secret("e")
    )
    bob = session.Responder(local(BOB, "bob"), mesh(), entropy("answer"))

    def run():
        by_hand.read(bob.receive(by_hand.write(b""), WALL))
        bob.receive(by_hand.write(payload), WALL)

    return refusal(run).reason


def test_two_members_meet():
    dialler, other, (first, second, third) = handshake()
    assert len(first) == 48
    assert max(len(second), len(third)) < session.MESSAGE_BYTES_MAX
    assert dialler.handshake_hash == other.handshake_hash
    assert len(dialler.handshake_hash) == 64
    alice = local()
    assert other.peer == session.PeerInfo(
        node=ALICE.public,
        name="alice",
        owner="owner",
        caps=("submit", "work"),
        boot=alice.boot,
        minor=session.MINOR,
        software="p2pq 0.1",
        prekey=alice.prekey,
        addresses=("10.0.0.1:7077", "[fe80::1]:7077"),
        wall_skew_ms=0,
        cert_expires=WALL + trust.CERT_LIFE_MS,
        certs=alice.certs,
    )
    assert dialler.peer.name == "bob"
    assert other.psk_index == 0


def test_an_admin_is_a_member_too():
    dialler, other, _ = handshake(bob=local(ADMIN, "admin", certs=(admin_cert(),)))
    assert "admin" in dialler.peer.caps
    assert other.peer.name == "alice"


def test_the_older_minor_version_holds():
    dialler, other, _ = handshake(alice=local(minor=7), bob=local(BOB, "bob", minor=3))
    assert dialler.peer.minor == other.peer.minor == 3


def test_skew_is_told():
    other = session.Responder(local(BOB, "bob"), mesh(), entropy())
    dialler = session.Initiator(local(), mesh(), entropy("dial"))
    third = dialler.receive(other.receive(dialler.start(), WALL), Wall(WALL - 1000))
    other.receive(third, WALL)
    assert dialler.peer.wall_skew_ms == 1000
    assert other.peer.wall_skew_ms == -1000


@pytest.mark.parametrize("index", range(session.PSKS_MAX))
def test_the_last_eight_mesh_keys_open_the_gate(index):
    keys = [secret(f"key {number}") for number in range(session.PSKS_MAX)]
    _, other, _ = handshake(alice_mesh=mesh(keys[index]), bob_mesh=mesh(*keys))
    assert other.psk_index == index


def test_the_ninth_does_not():
    keys = [secret(f"key {number}") for number in range(session.PSKS_MAX + 1)]
    gate = session.Responder(local(BOB, "bob"), mesh(*keys), entropy())
    dialler = session.Initiator(local(), mesh(keys[-1]), entropy())
    assert refusal(lambda: gate.receive(dialler.start(), WALL)).reason == session.WRONG_MESH


def test_outsiders_are_refused_without_public_key_operations(monkeypatch):
    """H5, and what keeps a flood of handshakes cheap."""
    first = session.Initiator(local(), mesh(secret("outsider")), entropy()).start()
    gate = session.Responder(local(BOB, "bob"), mesh(*[secret(str(n)) for n in range(8)]), entropy())
    for name in ("x25519_public", "x25519_shared", "verify"):
        monkeypatch.setattr(prims, name, lambda *_: pytest.fail("too expensive"))
    assert refusal(lambda: gate.receive(first, WALL)).reason == session.WRONG_MESH


@pytest.mark.parametrize("prologue", [b"p2pq/0", b"p2pq/2", b"p2pq/255", b"", b"p2pq-join/1"])
def test_other_versions_are_refused_at_the_first_message(prologue):
    """H16."""
    assert introduce(b"", prologue=prologue + MESH) == session.WRONG_MESH


@pytest.mark.parametrize("length", [0, 15, 16, 47, 49, 4097, 65536])
def test_first_messages_of_another_length_are_refused(length):
    first = (session.Initiator(local(), mesh(), entropy()).start() + bytes(70_000))[:length]
    gate = session.Responder(local(BOB, "bob"), mesh(), entropy())
    assert refusal(lambda: gate.receive(first, WALL)).reason == session.WRONG_MESH


def test_a_first_message_that_members_made_too_long_is_refused():
    by_hand = noise.HandshakeState("initiator", session.prologue(MESH), PSK, s=secret("s"), e=secret("e"))
    gate = session.Responder(local(BOB, "bob"), mesh(), entropy())
    first = by_hand.write(bytes(session.MESSAGE_BYTES_MAX))
    assert refusal(lambda: gate.receive(first, WALL)).reason == session.WRONG_MESH


def test_the_mesh_is_the_root_not_the_key():
    other = session.Responder(local(BOB, "bob"), mesh(root=OTHER_ROOT), entropy())
    assert dial(responder=other).reason == session.WRONG_MESH


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (hello(certs=()), trust.MISSING),
        (hello(certs=member_certs()[:1]), trust.NOT_ADMIN),
        (hello(certs=(b"junk", admin_cert())), trust.BAD_CERT),
        (hello(certs=(admin_cert(root=OTHER_ROOT),)), trust.WRONG_ROOT),
        (hello(certs=(*member_certs(), b"")), session.BAD_HELLO),  # a chain of three
        (hello(certs=(b"x" * 1025,)), session.BAD_HELLO),
        (hello(BOB, boot=secret("bob boot")[:16]), session.SELF),
        (hello(BOB), session.DUPLICATE_KEY),
        (hello(certs=member_certs(BOB, "bob")), session.NOT_HOLDER),  # H8
        (hello(static="another static"), session.BAD_SIGNATURE),  # H9: from another session
        (hello(mesh_id=prims.mesh_id(OTHER_ROOT.public)), session.BAD_SIGNATURE),  # from another mesh
        (hello(role=b"responder"), session.BAD_SIGNATURE),  # reflected
        (hello(prekey=b"q" * 32), session.BAD_SIGNATURE),
        (hello(node=BOB.public), session.BAD_SIGNATURE),
        (hello(sig=bytes(64)), session.BAD_SIGNATURE),
        (hello(node=bytes(32)), session.BAD_SIGNATURE),
        (hello(v=2), session.BAD_HELLO),
        (hello(v=0), session.BAD_HELLO),
        (hello(v=None), session.BAD_HELLO),
        (hello(minor=0), session.BAD_HELLO),
        (hello(minor=True), session.BAD_HELLO),
        (hello(minor=1 << 63), session.BAD_HELLO),
        (hello(wall=1.0), session.BAD_HELLO),
        (hello(wall=-1), session.BAD_HELLO),
        (hello(boot=b"short"), session.BAD_HELLO),
        (hello(software="\x1b[31m"), session.BAD_HELLO),
        (hello(addresses=["a:1"] * 17), session.BAD_HELLO),
        (hello(addresses=["a:1\n"]), session.BAD_HELLO),
        (hello(addresses=["a" * 65]), session.BAD_HELLO),
        (b"", session.BAD_HELLO),
        (b"\x91" * 3900, session.BAD_HELLO),
        (b"\x81\xa1x" + b"\x91" * 3000, session.BAD_HELLO),
        (hello() + b"\0", session.BAD_HELLO),
        (bytes(4096), session.NOT_AUTHENTIC),  # too long before it is opened
    ],
)
def test_introductions_that_do_not_convince(payload, reason):
    assert introduce(payload) == reason


def test_newer_introductions_are_understood():
    by_hand = noise.HandshakeState("initiator", session.prologue(MESH), PSK, s=secret("alice static"), e=secret("e"))
    bob = session.Responder(local(BOB, "bob"), mesh(), entropy("answer"))
    by_hand.read(bob.receive(by_hand.write(b""), WALL))
    bob.receive(by_hand.write(hello(news=[1, 2], minor=9)), WALL)
    assert bob.peer.minor == session.MINOR


@pytest.mark.parametrize(
    ("shift", "reason"),
    [
        (-3600_000, trust.NOT_YET_VALID),
        (-3650 * DAY_MS, trust.NOT_YET_VALID),
        (trust.CERT_LIFE_MS + 3600_000, trust.EXPIRED),
        (3650 * DAY_MS, trust.EXPIRED),
    ],
)
def test_clocks_and_expiry(shift, reason):
    """H19."""
    assert dial(wall=Wall(WALL + shift)).reason == reason


def test_bans_keep_out_and_tell_why():
    error = dial(our_mesh=mesh(banned=(ALICE.public,)))
    assert error.reason == trust.BANNED
    assert dial(our_mesh=mesh(banned=(ADMIN.public,))).reason == trust.ISSUER_BANNED


def test_the_refused_side_hears_the_reason():
    dialler = session.Initiator(local(), mesh(), entropy("dial"))
    gate = session.Responder(local(BOB, "bob"), mesh(banned=(ALICE.public,)), entropy())
    third = dialler.receive(gate.receive(dialler.start(), WALL), WALL)
    error = refusal(lambda: gate.receive(third, WALL))
    assert gate.peer is None
    assert gate.channel is None
    (record,) = error.farewell
    decoder = frames.Decoder()
    assert decoder.feed(dialler.channel.decrypt(record)) == []
    heard = session.refused_by_peer(decoder.bye)
    assert heard.reason == "by-peer:banned"
    assert str(heard) == "This node is banned from the mesh."


def test_hearsay_is_not_repeated():
    heard = session.refused_by_peer("\x1b[31m")
    assert heard.reason == "by-peer:unknown"
    assert str(heard) == "It refused this node (unknown)."
    assert str(session.refused_by_peer(trust.MISSING)) == "It refused this node (missing-certificate)."


def test_the_dialler_checks_as_well():
    dialler = session.Initiator(local(), mesh(banned=(BOB.public,)), entropy("dial"))
    gate = session.Responder(local(BOB, "bob"), mesh(), entropy())
    second = gate.receive(dialler.start(), WALL)
    assert refusal(lambda: dialler.receive(second, WALL)).reason == trust.BANNED
    assert dialler.channel is None


def test_dialling_oneself_and_ones_copy():
    """H18."""
    alice = local()
    myself = session.Responder(alice, mesh(), entropy())
    copy = session.Responder(local(boot=b"another boot...."), mesh(), entropy())
    for gate, reason in ((myself, session.SELF), (copy, session.DUPLICATE_KEY)):
        dialler = session.Initiator(alice, mesh(), entropy("dial"))
        second = gate.receive(dialler.start(), WALL)
        assert refusal(lambda d=dialler, s=second: d.receive(s, WALL)).reason == reason


def test_replayed_messages_lead_nowhere():
    """H11: a replayed first message costs an answer; the third proves that nobody is there."""
    _, _, (first, second, third) = handshake()
    gate = session.Responder(local(BOB, "bob"), mesh(), entropy("fresh"))
    gate.receive(first, WALL)
    assert refusal(lambda: gate.receive(third, WALL)).reason == session.NOT_AUTHENTIC
    dialler = session.Initiator(local(), mesh(), entropy("fresh too"))
    dialler.start()
    assert refusal(lambda: dialler.receive(second, WALL)).reason == session.NOT_AUTHENTIC


def test_reflected_messages_lead_nowhere():
    """H12."""
    dialler = session.Initiator(local(), mesh(), entropy("dial"))
    first = dialler.start()
    assert refusal(lambda: dialler.receive(first, WALL)).reason == session.NOT_AUTHENTIC
    gate = session.Responder(local(BOB, "bob"), mesh(), entropy())
    second = gate.receive(first, WALL)
    assert refusal(lambda: gate.receive(second, WALL)).reason == session.NOT_AUTHENTIC


@pytest.mark.parametrize("point", rfc.LOW_ORDER)
def test_low_order_points_under_the_right_mesh_key(point):
    """H10."""
    symmetric = noise.SymmetricState(session.prologue(MESH), PSK)
    symmetric.mix_hash(bytes.fromhex(point))
    symmetric.mix_key(bytes.fromhex(point))
    first = bytes.fromhex(point) + symmetric.encrypt_and_hash(b"")
    gate = session.Responder(local(BOB, "bob"), mesh(), entropy())
    assert refusal(lambda: gate.receive(first, WALL)).reason == session.NOT_AUTHENTIC


def test_a_broken_own_introduction_never_leaves():
    gate = session.Responder(local(BOB, "bob", software="\n"), mesh(), entropy())
    first = session.Initiator(local(), mesh(), entropy("dial")).start()
    with pytest.raises(LocalProtocolError):
        gate.receive(first, WALL)


def test_more_addresses_than_fit_are_left_out():
    _, other, _ = handshake(alice=local(addresses=tuple(f"10.0.0.{n}:1" for n in range(40))))
    assert len(other.peer.addresses) == session.ADDRESSES_MAX


def test_the_longest_introduction_fits():
    alice = local(
        certs=member_certs(ALICE, "\U0001f600" * 64),
        addresses=("a" * 64,) * 16,
        software="s" * 64,
        minor=1 << 16,
    )
    _, _, messages = handshake(alice=alice)
    assert len(messages[2]) < session.MESSAGE_BYTES_MAX


def test_connections_that_end_early():
    assert session.Initiator(local(), mesh(), entropy()).closed().reason == session.REFUSED_EARLY
    assert session.Responder(local(), mesh(), entropy()).closed().reason == session.LEFT


def test_secrets_do_not_print():
    text = repr(local()) + repr(mesh())
    assert repr(local().static) not in text
    assert repr(PSK) not in text


# -- records


def channels():
    dialler, other, _ = handshake()
    return dialler.channel, other.channel


def test_records_both_ways():
    ours, theirs = channels()
    for size in (0, 1, 1000, frames.PIECE_BYTES_MAX):
        assert theirs.decrypt(ours.encrypt(bytes(size))) == bytes(size)
        assert ours.decrypt(theirs.encrypt(bytes(size))) == bytes(size)
    assert len(ours.encrypt(bytes(frames.PIECE_BYTES_MAX))) == session.RECORD_BYTES_MAX
    with pytest.raises(LocalProtocolError):
        ours.encrypt(bytes(frames.PIECE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "attack",
    [
        lambda one, _two, _mine: [one, one],  # replayed
        lambda one, two, _mine: [two, one],  # reordered
        lambda _one, two, _mine: [two],  # dropped
        lambda one, _two, _mine: [one[:-1]],
        lambda one, _two, _mine: [one + b"\0"],
        lambda one, _two, _mine: [bytes((one[0] ^ 1,)) + one[1:]],
        lambda _one, _two, mine: [mine],  # reflected
        lambda _one, _two, _mine: [b""],
        lambda _one, _two, _mine: [bytes(15)],
        lambda _one, _two, _mine: [bytes(16)],
        lambda _one, _two, _mine: [bytes(65_536)],
        lambda _one, _two, _mine: ["text"],
    ],
)
def test_anything_but_the_next_record_ends_the_link(attack):
    """H12, H13."""
    ours, theirs = channels()
    one, two = theirs.encrypt(b"one"), theirs.encrypt(b"two")
    *before, last = attack(one, two, ours.encrypt(b"mine"))
    if before == [one]:
        assert ours.decrypt(one) == b"one"
        before = []
    with pytest.raises(Reject):
        ours.decrypt(*before or [last])
    with pytest.raises(Reject, match="after a failure"):
        ours.decrypt(two)


def test_records_have_a_longest_length_even_if_authentic():
    ours, theirs = channels()
    with pytest.raises(Reject, match="too long"):
        ours.decrypt(theirs._sending.cipher.encrypt(b"", bytes(frames.PIECE_BYTES_MAX + 1)))


@pytest.mark.parametrize(("limit", "value"), [("REKEY_RECORDS", 3), ("REKEY_BYTES", 100)])
def test_keys_change_on_the_way(monkeypatch, limit, value):
    monkeypatch.setattr(session, limit, value)
    changes = []
    rekey = noise.CipherState.rekey
    monkeypatch.setattr(noise.CipherState, "rekey", lambda cipher: (changes.append(1), rekey(cipher)))
    ours, theirs = channels()
    for number in range(9):
        assert theirs.decrypt(ours.encrypt(bytes(24))) == bytes(24), number
    assert len(changes) == 2 * 3


def test_a_change_of_keys_is_not_optional(monkeypatch):
    ours, theirs = channels()
    monkeypatch.setattr(session, "REKEY_RECORDS", 1)
    first = ours.encrypt(b"")
    monkeypatch.setattr(session, "REKEY_RECORDS", 1 << 14)
    theirs.decrypt(first)
    with pytest.raises(Reject):
        theirs.decrypt(ours.encrypt(b""))


def test_hello_is_a_plain_map():
    """So that later versions can add fields."""
    assert isinstance(msgspec.msgpack.decode(hello()), dict)
    assert codec.decode_lenient(hello(), session.Hello, size_max=4096).node == ALICE.public
