"""Joining by a code (H25 to H31 as far as the wire goes)."""

import msgspec
import pytest

from p2pq.errors import LocalProtocolError, UsageError
from p2pq.model.ids import Wall
from p2pq.wire import codec, frames, join, prims, session, sign, trust
from tests.unit.wire.makers import (
    ADMIN,
    BOB,
    OTHER_ROOT,
    PSK,
    ROOT,
    WALL,
    admin_cert,
    entropy,
    member_certs,
    secret,
    subject,
)

CODE = join.Code("4T", "K7QX93FD")
NEW = prims.SigningKey(secret("new"))


def client(code=CODE, *, wanted=(), key=NEW, name="new"):
    return join.JoinClient(code, key, name, wanted=wanted, software="p2pq 0.1", entropy=entropy("client"))


def server(code=CODE, offered=("submit", "work")):
    return join.JoinServer(code, offered, entropy=entropy("server"))


def answer(caps=("submit", "work"), key=NEW, **changes):
    admin = admin_cert()
    cert = trust.issue_member(ADMIN, admin, ROOT.public, subject(key, "new", caps=caps), serial=b"s" * 16, wall=WALL)
    fields = {"root": ROOT.public, "mesh_name": "lab", "certs": (cert, admin), "psks": (PSK,), "wall": WALL}
    return join.JoinAnswer(**(fields | changes))


def refusal(call):
    with pytest.raises(session.HandshakeRefused) as caught:
        call()
    assert str(caught.value) == join.SENTENCES[caught.value.reason]
    return caught.value


def up_to_request(joiner, inviter, wall=WALL):
    """Pass messages until the inviter knows who asks."""
    (first,) = joiner.start()
    (spake,) = inviter.receive(first, wall)
    (one,) = joiner.receive(spake, WALL)
    (two,) = inviter.receive(one, wall)
    three, *request = joiner.receive(two, WALL)
    assert inviter.receive(three, wall) == []
    for record in request:
        assert inviter.receive(record, wall) == []


def deliver(records, joiner, wall=WALL):
    return [reply for record in records for reply in joiner.receive(record, wall)]


def test_a_new_node_joins():
    joiner, inviter = client(wanted=("work",)), server()
    up_to_request(joiner, inviter)
    assert inviter.request.node == NEW.public
    assert inviter.request.name == "new"
    assert inviter.caps == ("work",)
    assert joiner.answer is None
    given = answer(caps=("work",), peers=("10.0.0.1:7077",), bans=(bytes(3000),) * 50)
    records = inviter.answer(given)
    assert len(records) == 1
    (bye,) = deliver(records, joiner)
    assert joiner.answer == given
    assert joiner.cert.caps == ("work",)
    assert not inviter.confirmed
    assert inviter.receive(bye, WALL) == []
    assert inviter.confirmed


def test_a_long_answer_takes_several_records():
    joiner, inviter = client(), server()
    up_to_request(joiner, inviter)
    assert inviter.caps == ("submit", "work")
    draw = entropy("bans")
    given = answer(bans=tuple(draw(1000) for _ in range(200)))
    records = inviter.answer(given)
    assert len(records) == 4
    deliver(records, joiner)
    assert joiner.answer == given


# -- codes


def test_codes():
    draw = entropy("codes")
    codes = {join.new_code(draw) for _ in range(50)}
    assert len(codes) == 50
    for code in codes:
        assert join.parse_code(code.text) == code
        assert len(code.text) == 12
    assert CODE.text == "4T-K7QX-93FD"
    assert CODE.secret not in repr(CODE)


@pytest.mark.parametrize("text", ["4t-k7qx-93fd", " 4TK7QX93FD\n", "4T K7QX 93FD", "4-T-K-7-Q-X-9-3-F-D"])
def test_codes_as_people_type_them(text):
    assert join.parse_code(text) == CODE


def test_letters_that_look_like_digits():
    assert join.parse_code("oO-iIlL-0011") == join.Code("00", "11110011")


@pytest.mark.parametrize("text", ["", "4T-K7QX-93F", "4T-K7QX-93FDA", "4T-K7QX-93FU", "4T-K7QX-93F!", "4T-K7QX-93Fé"])
def test_what_is_no_code(text):
    with pytest.raises(UsageError):
        join.parse_code(text)


def test_the_slot_finds_the_invitation():
    (first,) = client().start()
    assert join.slot_of(first) == "4T"
    for bad in (b"", first[:-1], first + b"\0", b"4U" + first[2:], b"\xff\xff" + first[2:], b"4t" + first[2:]):
        assert refusal(lambda bad=bad: join.slot_of(bad)).reason == join.BAD_MESSAGE


# -- guesses and other attacks


def test_a_wrong_code_fails_at_the_first_noise_message():
    """H25, H29, H31: both sides notice before anything else is said."""
    joiner, inviter = client(join.Code("4T", "K7QX93FE")), server()
    assert joiner.closed().reason == join.UNKNOWN_CODE
    (spake,) = inviter.receive(joiner.start()[0], WALL)
    (one,) = joiner.receive(spake, WALL)
    assert refusal(lambda: inviter.receive(one, WALL)).reason == join.WRONG_CODE
    assert joiner.closed().reason == join.WRONG_CODE
    assert inviter.closed().reason == join.LEFT


def test_another_slot_is_not_served():
    first = client(join.Code("5T", CODE.secret)).start()[0]
    assert refusal(lambda: server().receive(first, WALL)).reason == join.UNKNOWN_CODE


def test_a_rogue_inviter_learns_nothing_but_its_guess_was_wrong():
    joiner, rogue = client(), server(join.Code("4T", "K7QX93FE"))
    (one,) = joiner.receive(rogue.receive(joiner.start()[0], WALL)[0], WALL)
    assert len(one) == 48
    assert refusal(lambda: joiner.receive(bytes(96), WALL)).reason == join.WRONG_CODE


@pytest.mark.parametrize(
    "spake",
    [
        b"",
        b"B" + bytes(31),
        b"B" + bytes(33),
        b"B" + bytes(32),
        b"B\x01" + bytes(31),  # the neutral element
        b"B\x02" + bytes(31),  # not on the curve
        b"B" + b"\xff" * 32,
        b"S" + bytes(32),
        b"A" + bytes(32),
    ],
)
def test_hostile_points_are_refused_by_both(spake):
    joiner = client()
    joiner.start()
    assert refusal(lambda: joiner.receive(spake, WALL)).reason == join.BAD_MESSAGE
    ours = b"A" + spake[1:] if spake[:1] == b"B" else spake
    assert refusal(lambda: server().receive(b"4T" + ours, WALL)).reason == join.BAD_MESSAGE


def test_a_point_with_bytes_after_it_is_refused():
    joiner, inviter = client(), server()
    (spake,) = inviter.receive(joiner.start()[0], WALL)
    assert refusal(lambda: joiner.receive(spake + b"\0", WALL)).reason == join.BAD_MESSAGE


def test_a_reflected_message_is_refused():
    joiner = client()
    first = joiner.start()[0]
    for reflected in (first[2:], b"B" + first[3:]):
        assert refusal(lambda r=reflected: client_started().receive(r, WALL)).reason == join.BAD_MESSAGE


def client_started():
    joiner = client()
    joiner.start()
    return joiner


def test_runs_are_not_replayable():
    """H26 at the wire: the recorded messages of a success open nothing in another run."""
    joiner, inviter = client(), server()
    first = joiner.start()[0]
    (one,) = joiner.receive(inviter.receive(first, WALL)[0], WALL)
    again = join.JoinServer(CODE, ("work",), entropy=entropy("another run"))
    again.receive(first, WALL)
    assert refusal(lambda: again.receive(one, WALL)).reason == join.WRONG_CODE


def test_a_third_message_that_was_altered():
    joiner, inviter = client(), server()
    (one,) = joiner.receive(inviter.receive(joiner.start()[0], WALL)[0], WALL)
    (two,) = inviter.receive(one, WALL)
    three, _ = joiner.receive(two, WALL)
    assert refusal(lambda: inviter.receive(three[:-1], WALL)).reason == join.NOT_AUTHENTIC


def test_a_low_order_point_from_one_who_knows_the_code(monkeypatch):
    joiner, inviter = client(), server()
    (spake,) = inviter.receive(joiner.start()[0], WALL)
    monkeypatch.setattr(prims, "x25519_public", lambda _secret: bytes(32))
    (one,) = joiner.receive(spake, WALL)
    monkeypatch.undo()
    assert refusal(lambda: inviter.receive(one, WALL)).reason == join.NOT_AUTHENTIC


def raw_request(joiner, inviter, payload, wall=WALL):
    """Let a joiner that knows the code say anything; return why the inviter refuses."""
    (one,) = joiner.receive(inviter.receive(joiner.start()[0], WALL)[0], WALL)
    (two,) = inviter.receive(one, WALL)
    joiner._send = lambda channel, value: [channel.encrypt(piece) for piece in frames.encode(payload(value))]
    three, *records = joiner.receive(two, WALL)
    inviter.receive(three, WALL)

    def run():
        for record in records:
            inviter.receive(record, wall)

    return refusal(run)


def changed(**fields):
    return lambda value: codec.encode(msgspec.structs.replace(value, **fields))


@pytest.mark.parametrize(
    ("payload", "reason", "told"),
    [
        (lambda _: b"junk", join.BAD_MESSAGE, False),
        (lambda _: b"\x91" * 4000, join.BAD_MESSAGE, False),
        (lambda _: bytes(5000), join.NOT_AUTHENTIC, False),
        (changed(name=""), join.BAD_MESSAGE, False),
        (changed(wanted=("root",)), join.BAD_MESSAGE, False),
        (changed(name="a\x1b[31m"), join.BAD_MESSAGE, True),
        (changed(proof=bytes(64)), join.BAD_PROOF, True),
        (changed(node=BOB.public), join.BAD_PROOF, True),
        (changed(proof=NEW.sign(sign.pae(b"join", bytes(64)))), join.BAD_PROOF, True),  # of another run
        (changed(wanted=("admin",)), join.TOO_MUCH, True),  # H30
        (changed(wanted=("bridge", "work")), join.TOO_MUCH, True),
        (changed(wall=WALL + trust.SKEW_MS + 1), join.CLOCK, True),
        (changed(wall=0), join.CLOCK, True),
    ],
)
def test_requests_that_cannot_be_granted(payload, reason, told):
    joiner, inviter = client(), server()
    error = raw_request(joiner, inviter, payload)
    assert error.reason == reason
    assert inviter.request is None
    assert bool(error.farewell) == told
    if told:
        assert refusal(lambda: deliver(error.farewell, joiner)).reason == reason


def test_one_request_per_connection():
    joiner, inviter = client(), server()
    up_to_request(joiner, inviter)
    second = joiner._send(joiner._channel, inviter.request)
    assert refusal(lambda: inviter.receive(second[0], WALL)).reason == join.BAD_MESSAGE


def test_one_answer_per_connection():
    joiner, inviter = client(), server()
    up_to_request(joiner, inviter)
    deliver(inviter.answer(answer()), joiner)
    again = inviter.answer(answer(mesh_name="other"))
    assert refusal(lambda: deliver(again, joiner)).reason == join.BAD_MESSAGE
    assert joiner.answer.mesh_name == "lab"


def test_two_requests_in_one_record():
    joiner, inviter = client(), server()
    joiner._send = lambda channel, value: [channel.encrypt(frames.encode(codec.encode(value))[0] * 2)]
    assert refusal(lambda: up_to_request(joiner, inviter)).reason == join.BAD_MESSAGE


def test_a_bye_instead_of_a_request_confirms_nothing():
    joiner, inviter = client(), server()
    joiner._send = lambda channel, _value: [channel.encrypt(frames.encode_bye())]
    up_to_request(joiner, inviter)
    assert not inviter.confirmed


def test_nobody_is_answered_before_asking():
    for call in (lambda s: s.answer(answer()), lambda s: s.refuse(join.DENIED)):
        with pytest.raises(LocalProtocolError):
            call(server())


def test_an_answer_nobody_could_read_is_not_sent():
    joiner, inviter = client(), server()
    up_to_request(joiner, inviter)
    with pytest.raises(LocalProtocolError):
        inviter.answer(answer(psks=()))
    with pytest.raises(LocalProtocolError):
        inviter.refuse("because")


@pytest.mark.parametrize("reason", [join.DENIED, join.EXPIRED, join.USED, join.NAME_TAKEN, join.IS_BANNED])
def test_refusals_arrive(reason):
    joiner, inviter = client(), server()
    up_to_request(joiner, inviter)
    assert refusal(lambda: deliver(inviter.refuse(reason), joiner)).reason == reason
    assert joiner.closed().reason == join.LEFT


def hear(payload, wanted=(), wall=WALL):
    joiner, inviter = client(wanted=wanted), server(offered=("admin", "bridge", "submit", "work"))
    up_to_request(joiner, inviter)
    pieces = frames.encode(codec.encode(payload) if not isinstance(payload, bytes) else payload)
    records = [inviter._channel.encrypt(piece) for piece in pieces]
    error = refusal(lambda: deliver(records, joiner, Wall(wall)))
    assert joiner.answer is None
    assert joiner.cert is None
    return error.reason


@pytest.mark.parametrize(
    ("payload", "wanted", "reason"),
    [
        (b"junk", (), join.BAD_MESSAGE),
        (codec.encode(answer())[:-1], (), join.BAD_MESSAGE),
        (join.JoinRefusal(reason="\x1b[31m"), (), join.DENIED),
        (answer(key=BOB), (), join.BAD_ANSWER),
        (answer(certs=member_certs()[:1]), (), join.BAD_ANSWER),
        (answer(root=OTHER_ROOT.public), (), join.BAD_ANSWER),
        (answer(wall=WALL + trust.SKEW_MS + 1), (), join.CLOCK),
        (answer(caps=("submit", "work")), ("work",), join.GIVES_TOO_MUCH),  # H30
        (answer(certs=(admin_cert(NEW),)), ("bridge", "submit", "work"), join.GIVES_TOO_MUCH),
    ],
)
def test_answers_that_make_nobody_a_member(payload, wanted, reason):
    assert hear(payload, wanted) == reason


def test_an_answer_to_a_wrong_clock():
    assert hear(answer(), wall=WALL - 86_400_000) == join.CLOCK


@pytest.mark.parametrize("wanted", [(), ("admin", "bridge", "submit", "work")])
def test_who_is_invited_as_an_admin_joins_as_one(wanted):
    joiner, inviter = client(wanted=wanted), server(offered=("admin", "bridge", "submit", "work"))
    up_to_request(joiner, inviter)
    deliver(inviter.answer(answer(certs=(admin_cert(NEW),))), joiner)
    assert "admin" in joiner.cert.caps


@pytest.mark.parametrize("attack", [lambda r: r[:-1], lambda r: bytes((r[0] ^ 1,)) + r[1:], lambda _: b""])
def test_altered_records_end_it(attack):
    joiner, inviter = client(), server()
    up_to_request(joiner, inviter)
    (record,) = inviter.answer(answer())
    assert refusal(lambda: joiner.receive(attack(record), WALL)).reason == join.NOT_AUTHENTIC
