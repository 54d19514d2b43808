"""The most that was taken within the last moment."""

from hypothesis import given
from hypothesis import strategies as st

from p2pq.core.lately import KEEP_S, Lately
from p2pq.model.ids import Mono


def test_nothing_is_kept_at_first_and_while_more_is_taken() -> None:
    lately = Lately()
    assert lately.kept(Mono(0.0)) == 0
    assert lately.until is None
    for at, cpus in enumerate((0, 1, 3)):
        lately.take_in(cpus, Mono(at))
    assert lately.kept(Mono(2.0)) == 0
    assert lately.until is None


def test_what_was_taken_is_kept_for_a_moment() -> None:
    lately = Lately()
    lately.take_in(3, Mono(0.0))
    lately.take_in(1, Mono(5.0))
    assert lately.kept(Mono(5.0)) == 2
    assert lately.until == 5.0 + KEEP_S
    lately.take_in(2, Mono(5.25))
    assert lately.kept(Mono(5.25)) == 1
    assert lately.kept(Mono(5.0 + KEEP_S)) == 0
    assert lately.until is None


def test_a_lower_peak_after_a_higher_one_is_kept_for_longer() -> None:
    lately = Lately()
    lately.take_in(4, Mono(0.0))
    lately.take_in(2, Mono(5.0))
    lately.take_in(0, Mono(5.25))
    assert lately.kept(Mono(5.45)) == 4
    assert lately.kept(Mono(5.0 + KEEP_S)) == 2
    lately.take_in(3, Mono(5.6))
    lately.take_in(0, Mono(5.7))
    assert lately.kept(Mono(5.25 + KEEP_S)) == 3
    assert lately.kept(Mono(5.7 + KEEP_S)) == 0


@given(st.lists(st.tuples(st.floats(0, 0.4), st.integers(0, 4)), max_size=40))
def test_it_is_the_most_of_the_last_moment(steps: list[tuple[float, int]]) -> None:
    """Beside a list of all that ever was."""
    lately, now, cpus = Lately(), 0.0, 0
    past: list[tuple[float, int]] = []
    for pause, following in steps:
        past.append((now + pause, cpus))
        now, cpus = now + pause, following
        lately.take_in(cpus, Mono(now))
        most = max((was for until, was in past if now < until + KEEP_S), default=0)
        assert lately.kept(Mono(now)) == max(0, most - cpus)
        assert (lately.until is None) or now < lately.until <= now + KEEP_S
        assert len(lately._peaks) <= 4
