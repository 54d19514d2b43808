"""Times and sizes as people type them."""

import pytest

from p2pq.errors import UsageError
from p2pq.model.amounts import SECONDS_MAX, parse_megabytes, parse_milliseconds, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1h30m", 5400),
        ("01:30:00", 5400), ("2:03", 123), ("1d1h1m1s", 90061),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "soon", "-5", "1.5", "1:2", "5x", "m", "1h 30m"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="15m"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["9" * 30, "999999999d", "999999999:00", f"{366 * 24 + 1}h"])
def test_no_duration_is_longer_than_a_year(text):
    with pytest.raises(UsageError, match="15m"):
        parse_seconds(text)
    assert parse_seconds("366d") == SECONDS_MAX


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("0", 0), ("0.5", 500), (".25s", 250), ("2.", 2000), ("0.0001", 1), ("3", 3000), ("1h30m", 5_400_000)],
)
def test_fractions_of_seconds(text, milliseconds):
    assert parse_milliseconds(text) == milliseconds


@pytest.mark.parametrize("text", ["", ".", "-1", "1.5m", "0m", "1e3", "nan", "9" * 30])
def test_what_is_no_time_in_milliseconds(text):
    with pytest.raises(UsageError, match="15m"):
        parse_milliseconds(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 30 + "G", "999999999999T", "17T"])
def test_no_size_is_larger_than_any_machine(text):
    with pytest.raises(UsageError, match="512M"):
        parse_megabytes(text)


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [("512", 512), ("512M", 512), ("4G", 4096), ("4GiB", 4096), ("1.5g", 1536), ("2048k", 2), ("1T", 1 << 20)],
)
def test_sizes(text, megabytes):
    assert parse_megabytes(text) == megabytes


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "1k", "4X", "4GG"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="512M"):
        parse_megabytes(text)
