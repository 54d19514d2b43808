"""Pressure, as the kernel writes it."""

from pathlib import Path

import pytest

from p2pq.daemon.sensors.memory import Memory


@pytest.mark.parametrize(
    ("text", "pressure"),
    [
        ("some avg10=12.50 avg60=1.00 avg300=0.02 total=5\nfull avg10=3.00 avg60=0.00 avg300=0.01 total=3\n", 0.125),
        ("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0.0),
        ("full avg10=3.00 avg60=0.00 avg300=0.01 total=3\n", None),
        ("", None),
        (None, None),
    ],
)
def test_pressure_is_a_part_of_one(tmp_path: Path, text: str | None, pressure: float | None) -> None:
    if text is not None:
        (tmp_path / "proc" / "pressure").mkdir(parents=True)
        (tmp_path / "proc" / "pressure" / "memory").write_text(text)
    assert Memory(str(tmp_path)).pressure() == pressure


def test_this_machine_says_something_or_nothing() -> None:
    pressure = Memory().pressure()
    assert pressure is None or 0 <= pressure <= 1
