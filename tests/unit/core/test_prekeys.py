"""Prekeys: the newest is sealed to, those before open what is still on its way, then they are gone."""

import pytest

from p2pq.core import prekeys as module
from p2pq.core.prekeys import PREKEY_S, Prekeys, make_card, open_card, open_leaf_card
from p2pq.errors import Reject
from p2pq.model.ids import Mono, Wall
from p2pq.wire import prims, seal, sign, trust
from p2pq.wire.objects import Keycard
from tests.unit.core.workerkit import ANN, IDENTITY, ME, MESH, WALL, entropy

KEEP_S = 360.0
LINK = ME.link()


def draws(number: int):
    return lambda size: number.to_bytes(size, "big")


def sealed_to(public: bytes) -> bytes:
    return seal.seal(public, b"k" * 32, b"context", entropy)


def test_a_week_later_there_is_a_new_one_and_the_old_one_opens_for_a_while():
    keys = Prekeys(IDENTITY, Mono(5.0), KEEP_S)
    first = keys.public
    assert (first, keys.turned) == (ME.prekey, False)
    assert not keys.turn(Mono(PREKEY_S + 4.9), draws(1))
    assert keys.turn(Mono(PREKEY_S + 5.0), draws(1))
    assert keys.turned
    assert keys.public == prims.x25519_public(draws(1)(32))
    assert not keys.turn(Mono(PREKEY_S + 5.0 + KEEP_S - 1), draws(2))
    assert keys.open(sealed_to(first), b"context") == keys.open(sealed_to(keys.public), b"context") == b"k" * 32
    assert not keys.turn(Mono(PREKEY_S + 5.0 + KEEP_S), draws(2))
    assert keys.open(sealed_to(keys.public), b"context") == b"k" * 32
    with pytest.raises(Reject):
        keys.open(sealed_to(first), b"context")
    assert keys.turn(Mono(2 * PREKEY_S + 5.0), draws(2))


def test_what_was_sealed_to_nobody_here_or_bound_to_something_else_does_not_open():
    keys = Prekeys(IDENTITY, Mono(0.0), KEEP_S)
    keys.turn(Mono(PREKEY_S), draws(1))
    for sealed, context in ((sealed_to(ANN.prekey), b"context"), (sealed_to(keys.public), b"other")):
        with pytest.raises(Reject):
            keys.open(sealed, context)


def test_a_keycard_names_the_new_prekey_to_whoever_is_linked():
    raw = make_card(b"n" * 32, IDENTITY, WALL)
    assert open_card(raw, LINK, MESH, Wall(WALL + trust.SKEW_MS)) == b"n" * 32


def card(by=ME, **fields) -> bytes:
    plain = {"mesh": MESH, "node": ME.node, "boot": bytes(16), "prekey": b"n" * 32, "iat": WALL, "exp": WALL + 1}
    return sign.sign(by.signer, Keycard(**(plain | fields)))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (card(ANN), "signature"),
        (card(node=ANN.node), "not of this link"),
        (card(mesh=b"x" * 32), "not of this link"),
        (card(boot=b"b" * 16), "not of this link"),
        (card(iat=WALL + trust.SKEW_MS + 1), "not of this time"),
        (card(exp=WALL - trust.SKEW_MS - 1), "not of this time"),
        (b"x", "malformed"),
    ],
)
def test_a_keycard_that_is_not_the_peers_word_of_now_is_refused(raw: bytes, reason: str):
    with pytest.raises(Reject, match=reason):
        open_card(raw, LINK, MESH, WALL)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (card(ANN), "signature"),
        (card(node=ANN.node), "another node"),
        (card(mesh=b"x" * 32), "another node"),
        (card(exp=WALL - trust.SKEW_MS - 1), "not of this time"),
    ],
)
def test_the_keycard_of_a_node_that_is_not_linked_is_its_own_word_of_now(raw: bytes, reason: str):
    assert open_leaf_card(card(boot=b"b" * 16), ME.node, MESH, WALL) == b"n" * 32
    with pytest.raises(Reject, match=reason):
        open_leaf_card(raw, ME.node, MESH, WALL)


def test_a_card_outlives_its_prekey():
    assert module.CARD_MS / 1000 > PREKEY_S
