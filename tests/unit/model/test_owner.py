"""What sensors say and what follows: values that travel as they are."""

import msgspec
import pytest

from p2pq.model.owner import SENSORS, Readings, Verdict


def test_nothing_is_known_before_anything_is_read():
    unknown = Readings()
    assert {name for name in unknown.__struct_fields__ if getattr(unknown, name) is None} == {
        "idle_s", "locked", "full_screen", "load", "pressure", "mains", "battery", "programs", "guests_mb",
    }  # fmt: skip
    assert (unknown.saver, unknown.absent) == (False, ())


def test_without_a_word_guests_may_run():
    assert Verdict() == Verdict(stance="run", reason="")


def test_a_verdict_is_written_down_and_read_again_and_no_other_stance_is():
    verdict = Verdict(stance="suspend", reason="somebody uses this machine")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(verdict), type=Verdict) == verdict
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"stance": "stroll"}, Verdict)


def test_sensors_have_names_of_their_own():
    assert len(set(SENSORS)) == len(SENSORS)


@pytest.mark.parametrize(
    ("stance", "still"), [("run", False), ("hold", False), ("suspend", True), ("evict", True), ("kill", True)]
)
def test_it_says_whether_guests_run(stance, still):
    assert Verdict(stance=stance).still is still
