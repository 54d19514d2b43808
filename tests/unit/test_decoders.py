"""Decoders made in several threads at once, and what they say of bad input."""

import subprocess
import sys
import textwrap

import msgspec
import pytest

from p2pq import decoders

TWO_THREADS = """
import sys, threading
import msgspec
from p2pq import decoders

READ = {
    "packed": (msgspec.msgpack.encode, decoders.unpack),
    "json": (msgspec.json.encode, decoders.read_json),
    "plain": (msgspec.to_builtins, decoders.convert),
    "mixed": (msgspec.msgpack.encode, decoders.unpack),
}
write, read = READ[sys.argv[1]]
here = (msgspec.to_builtins, decoders.convert) if sys.argv[1] == "mixed" else (write, read)

class Inner(msgspec.Struct):
    word: "paused()"

class Outer(msgspec.Struct):
    inner: Inner

said = here[0]({"inner": {"word": "a"}})
theirs = write({"inner": {"word": "a"}})
found = []
other = threading.Thread(target=lambda: found.append(read(theirs, Outer)))

def paused():
    # Called in the midst of looking through Outer: without the lock the other thread finds it half done and crashes.
    if not other.is_alive() and not found:
        other.start()
        other.join(0.2)
    return str

found.append(here[1](said, Outer))
other.join()
print(*(each.inner.word for each in found))
"""


class Known(msgspec.Struct):
    number: int


@pytest.mark.parametrize("form", ["packed", "json", "plain", "mixed"])
def test_two_threads_that_meet_a_struct_for_the_first_time(form):
    argv = [sys.executable, "-c", textwrap.dedent(TWO_THREADS), form]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a a\n", "")


@pytest.mark.parametrize("form", [decoders.of_packed, decoders.of_json])
def test_a_decoder_is_made_once(form):
    assert form(Known | None) is form(Known | None)
    assert form(Known) is not form(tuple[Known, ...])


def test_values_of_every_form():
    assert decoders.unpack(msgspec.msgpack.encode({"number": 3}), Known) == Known(3)
    assert decoders.read_json(b'{"number": 3}', Known) == Known(3)
    assert decoders.convert({"number": 3}, Known) == Known(3)
    assert decoders.convert({"number": "3"}, Known, strict=False) == Known(3)


@pytest.mark.parametrize(
    ("read", "bad"),
    [(decoders.unpack, b"\x81"), (decoders.read_json, b'{"number": "3"}'), (decoders.convert, {"number": "3"})],
)
def test_what_is_no_such_value(read, bad):
    with pytest.raises(msgspec.MsgspecError):
        read(bad, Known)
