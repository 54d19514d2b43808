"""A link and an attacker who owns the network: what arrives is a prefix of what was sent, or nothing more arrives."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from p2pq.errors import Reject
from p2pq.wire import frames
from tests.unit.wire.makers import handshake


class Link(RuleBasedStateMachine):
    """Alice sends to Bob and Bob to Alice; the attacker delivers what it likes, where it likes, as often as it likes."""

    records = Bundle("records")

    def __init__(self) -> None:
        super().__init__()
        alice, bob, _ = handshake()
        self.channels = (alice.channel, bob.channel)
        self.decoders = (frames.Decoder(), frames.Decoder())
        self.sent: tuple[list[bytes], list[bytes]] = ([], [])
        self.heard: tuple[list[bytes], list[bytes]] = ([], [])
        self.expected = [0, 0]
        self.made = [0, 0]
        self.broken = [False, False]

    @rule(target=records, sender=st.integers(0, 1), message=st.binary(min_size=1, max_size=700))
    def send(self, sender, message):
        (piece,) = frames.encode(message)
        self.sent[sender].append(message)
        number = self.made[sender]
        self.made[sender] += 1
        return sender, number, self.channels[sender].encrypt(piece)

    @rule(record=consumes(records))
    def deliver(self, record):
        self._arrive(record, 1 - record[0])

    @rule(record=records, receiver=st.integers(0, 1))
    def replay_or_reflect(self, record, receiver):
        self._arrive(record, receiver)

    @rule(record=records, at=st.integers(0, 1000), mask=st.integers(1, 255))
    def alter(self, record, at, mask):
        sender, _, raw = record
        at %= len(raw)
        changed = raw[:at] + bytes((raw[at] ^ mask,)) + raw[at + 1 :]
        self._arrive((sender, -1, changed), 1 - sender)

    def _arrive(self, record, receiver):
        sender, number, raw = record
        due = sender != receiver and number == self.expected[receiver] and not self.broken[receiver]
        try:
            plaintext = self.channels[receiver].decrypt(raw)
        except Reject:
            assert not due
            self.broken[receiver] = True
            return
        assert due
        self.expected[receiver] += 1
        self.heard[receiver].extend(self.decoders[receiver].feed(plaintext))

    @invariant()
    def only_what_was_sent_in_order(self):
        for receiver in (0, 1):
            heard = self.heard[receiver]
            assert heard == self.sent[1 - receiver][: len(heard)]
            assert len(heard) == self.expected[receiver]


TestLink = Link.TestCase
