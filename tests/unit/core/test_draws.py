import hashlib

import pytest

from p2pq.core.draws import Stream, StreamRandom
from p2pq.errors import Reject

SEED = b"s" * 32


def test_a_stream_is_keyed_blake2b_over_a_counter_however_it_is_cut():
    def prf(key: bytes, data: bytes, size: int) -> bytes:
        return hashlib.blake2b(data, digest_size=size, key=key, person=b"p2pq-draws").digest()

    key = prf(SEED, b"rng", 32)
    expected = b"".join(prf(key, number.to_bytes(8, "big"), 64) for number in range(3))
    stream = Stream(SEED, "rng")
    assert stream.take(192) == expected
    again = Stream(SEED, "rng")
    assert b"".join(again.take(size) for size in (0, 1, 63, 65, 63)) == expected


def test_names_and_seeds_have_nothing_in_common():
    assert len({Stream(seed, name).take(32) for seed in (SEED, b"t" * 32) for name in ("rng", "entropy")}) == 4
    with pytest.raises(Reject):
        Stream(b"short", "rng")


def test_chance_from_a_stream_is_even_and_repeats():
    rng, again = (StreamRandom(Stream(SEED, "rng")) for _ in range(2))
    draws = [rng.random() for _ in range(10_000)]
    assert draws == [again.random() for _ in range(10_000)]
    assert 0 <= min(draws) < 0.01
    assert 0.99 < max(draws) < 1
    assert 0.48 < sum(draws) / len(draws) < 0.52
    counts = [0] * 3
    for _ in range(3000):
        counts[rng.randrange(3)] += 1
    assert min(counts) > 900
    assert [rng.getrandbits(1) for _ in range(100)].count(1) in range(30, 70)
    assert max(rng.getrandbits(12) for _ in range(10_000)) in range(4000, 4096)


def test_there_is_no_state_but_the_streams():
    rng, again = (StreamRandom(Stream(SEED, "rng")) for _ in range(2))
    rng.seed(7)
    assert rng.random() == again.random()
    with pytest.raises(NotImplementedError):
        rng.getstate()
    with pytest.raises(NotImplementedError):
        rng.setstate(())
