"""Whatever is granted, ran and came back: the books balance, and nobody gets far ahead."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pq.core.fairness import Fairness
from p2pq.model.ids import Mono

OWNERS = ("ann", "bob", "cat", "dan")
seconds = st.floats(0, 100).map(lambda value: round(value, 3))


class Books(RuleBasedStateMachine):
    """The real books beside plain sums."""

    def __init__(self) -> None:
        super().__init__()
        self.fair = Fairness(10.0)
        self.rng = Random(1)
        self.now = 0.0
        self.open: dict[int, tuple[str, int, float, float | None]] = {}
        self.paid: dict[str, float] = {}
        self.raised: dict[str, float] = {}
        self.numbers = 0

    @rule(owner=st.sampled_from(OWNERS), cpus=st.integers(0, 8), expected_s=seconds)
    def charge(self, owner: str, cpus: int, expected_s: float) -> None:
        self.numbers += 1
        self.fair.charge(self.numbers, owner, cpus, expected_s)
        self.open[self.numbers] = (owner, cpus, expected_s, None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def occupy(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.open)))
        owner, cpus, expected_s, since = self.open[key]
        if since is None:
            self.fair.occupy(key, Mono(self.now))
            self.open[key] = (owner, cpus, expected_s, self.now)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.open)))
        owner, cpus, _, since = self.open.pop(key)
        took_s = self.fair.free(key, Mono(self.now))
        assert took_s == (0.0 if since is None else self.now - since)
        self.paid[owner] = self.paid.get(owner, 0.0) + took_s * cpus

    @rule(after=seconds)
    def wait(self, after: float) -> None:
        self.now += after

    @rule(owners=st.lists(st.sampled_from(OWNERS), min_size=1, unique=True))
    def draw(self, owners: list[str]) -> None:
        before = self.fair.given(Mono(self.now))
        assert self.fair.draw(tuple(owners), Mono(self.now), self.rng) in owners
        after = self.fair.given(Mono(self.now))
        for owner in OWNERS:
            rise = after.get(owner, 0.0) - before.get(owner, 0.0)
            # Drawing takes nothing away, and lifts nobody above the highest account there was.
            assert rise >= 0
            assert not rise or after[owner] <= max(before.values()) + 1e-6
            self.raised[owner] = self.raised.get(owner, 0.0) + rise

    @invariant()
    def the_books_balance(self) -> None:
        self.fair.check()
        expected = {owner: self.paid.get(owner, 0.0) + self.raised.get(owner, 0.0) for owner in OWNERS}
        for owner, cpus, expected_s, since in self.open.values():
            ran_s = 0.0 if since is None else self.now - since
            expected[owner] += max(ran_s, expected_s) * cpus
        for owner, sum_s in self.fair.given(Mono(self.now)).items():
            assert abs(sum_s - expected[owner]) < 1e-6 * (1 + sum_s)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.floats(0.01, 50), min_size=2, max_size=5),
    seed=st.integers(0, 1 << 32),
)
def test_saturated_owners_stay_within_a_few_scales(lengths: list[float], seed: int) -> None:
    fair = Fairness(10.0)
    rng = Random(seed)
    owners = tuple(f"o{number}" for number in range(len(lengths)))
    now = 0.0
    for key in range(3000):
        owner = fair.draw(owners, Mono(now), rng)
        fair.charge(key, owner, 1, 10.0)
        fair.occupy(key, Mono(now))
        now += lengths[owners.index(owner)]
        fair.free(key, Mono(now))
    given_s = fair.given(Mono(now)).values()
    # Being drawn at a lead of 15 scales has a chance of e^-15 a draw.
    assert max(given_s) - min(given_s) <= max(lengths) + 150
