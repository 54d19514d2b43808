"""The handshake against an independent implementation, and against misuse."""

import pytest
from noise.connection import Keypair, NoiseConnection

from p2pq.errors import LocalProtocolError, Reject
from p2pq.wire import noise, prims
from tests.unit.wire.makers import PSK, secret
from tests.vectors import rfc

PROLOGUE = b"p2pq/1" + b"m" * 32


def make(role, **more):
    fields = {"s": secret(f"{role} s"), "e": secret(f"{role} e")} | more
    return noise.HandshakeState(role, PROLOGUE, PSK, **fields)


def finished():
    one, two = make("initiator"), make("responder")
    for writer, reader in ((one, two), (two, one), (one, two)):
        reader.read(writer.write(b"payload"))
    return one, two


def foreign(*, initiator):
    other = NoiseConnection.from_name(noise.PROTOCOL)
    (other.set_as_initiator if initiator else other.set_as_responder)()
    other.set_psks(PSK)
    other.set_prologue(PROLOGUE)
    other.set_keypair_from_private_bytes(Keypair.STATIC, secret("foreign"))
    other.start_handshake()
    return other


@pytest.mark.parametrize("we_dial", [True, False])
def test_interoperates_with_noiseprotocol_including_rekey(we_dial):
    we = make("initiator" if we_dial else "responder")
    they = foreign(initiator=not we_dial)
    for number, payload in enumerate((b"", b"second", b"third" * 100)):
        if we_dial == (number != 1):
            assert they.read_message(we.write(payload)) == payload
        else:
            assert we.read(bytes(they.write_message(payload))) == payload
    assert we.done
    assert we.hash == they.get_handshake_hash()
    assert we.remote_static == prims.x25519_public(secret("foreign"))
    sending, receiving = we.split()
    for _ in range(3):
        assert they.decrypt(sending.encrypt(b"", b"out")) == b"out"
        assert receiving.decrypt(b"", bytes(they.encrypt(b"in"))) == b"in"
        sending.rekey()
        they.rekey_inbound_cipher()
        they.rekey_outbound_cipher()
        receiving.rekey()


def test_both_ends_agree_and_learn_each_other():
    one, two = finished()
    assert one.hash == two.hash
    assert one.remote_static == prims.x25519_public(secret("responder s"))
    assert two.remote_static == prims.x25519_public(secret("initiator s"))
    (out, back), (their_out, their_back) = one.split(), two.split()
    assert their_back.decrypt(b"", out.encrypt(b"", b"x")) == b"x"
    assert back.decrypt(b"", their_out.encrypt(b"", b"y")) == b"y"


def test_first_message_is_48_bytes():
    assert len(make("initiator").write(b"")) == 48


def test_another_prologue_fails_at_the_first_message():
    other = noise.HandshakeState("responder", PROLOGUE + b"2", PSK, s=secret("a"), e=secret("b"))
    with pytest.raises(Reject):
        other.read(make("initiator").write(b""))


def test_a_failed_read_is_final():
    one, two = make("initiator"), make("responder")
    first = one.write(b"")
    with pytest.raises(Reject):
        two.read(first[:-1] + bytes((first[-1] ^ 1,)))
    with pytest.raises(LocalProtocolError):
        two.read(first)


def test_turns_are_kept():
    one, two = make("initiator"), make("responder")
    with pytest.raises(LocalProtocolError):
        two.write(b"")
    with pytest.raises(LocalProtocolError):
        one.read(b"")
    with pytest.raises(LocalProtocolError):
        one.split()
    done, _ = finished()
    with pytest.raises(LocalProtocolError):
        done.write(b"")
    with pytest.raises(LocalProtocolError):
        done.read(b"")


def test_messages_are_bounded():
    with pytest.raises(Reject, match="too long"):
        make("responder").read(bytes(noise.MESSAGE_BYTES_MAX + 1))


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 47])
def test_short_messages_are_rejected(length):
    with pytest.raises(Reject):
        make("responder").read(make("initiator").write(b"")[:length])


@pytest.mark.parametrize("bad", [{"s": b"short"}, {"e": b""}])
def test_keys_have_32_bytes(bad):
    with pytest.raises(Reject, match="key length"):
        make("initiator", **bad)


@pytest.mark.parametrize("point", rfc.LOW_ORDER)
def test_a_low_order_ephemeral_is_refused(point):
    """H10: its sender knows the mesh key, or it would not get this far."""
    symmetric = noise.SymmetricState(PROLOGUE, PSK)
    symmetric.mix_hash(bytes.fromhex(point))
    symmetric.mix_key(bytes.fromhex(point))
    responder = make("responder")
    responder.read(bytes.fromhex(point) + symmetric.encrypt_and_hash(b""))
    with pytest.raises(Reject, match="low-order"):
        responder.write(b"")


def test_a_low_order_static_is_refused(monkeypatch):
    one, two = make("initiator"), make("responder")
    two.read(one.write(b""))
    one.read(two.write(b""))
    monkeypatch.setattr(prims, "x25519_public", lambda _secret: bytes(32))
    third = one.write(b"")
    with pytest.raises(Reject, match="low-order"):
        two.read(third)


def test_nonces_end():
    cipher = noise.CipherState(PSK, noise.NONCE_MAX - 1)
    last = cipher.encrypt(b"", b"last")
    with pytest.raises(Reject, match="used up"):
        cipher.encrypt(b"", b"one more")
    reader = noise.CipherState(PSK, noise.NONCE_MAX - 1)
    assert reader.decrypt(b"", last) == b"last"
    with pytest.raises(Reject, match="used up"):
        reader.decrypt(b"", last)
