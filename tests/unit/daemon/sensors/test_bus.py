"""A message bus, a real one, and what only listens like one."""

import fcntl
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, HeaderFields, MatchRule, Message, new_method_call

from p2pq.daemon.sensors import bus
from p2pq.daemon.sensors.bus import Bus, BusGoneError
from tests.desktopkit import message_bus, service

NAME = "org.example.Thing"
THING = DBusAddress("/thing", NAME, NAME)


def until(made: Bus, done: Callable[[], object]) -> None:
    """Look until something has come."""
    while not done():
        made.look(20)


@pytest.mark.desktop
def test_answers_refusals_and_signals_come_at_a_later_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "GREETING_S", 20)
    heard: list[Any] = []
    signals: list[Message] = []
    answers = {("/thing", "Say"): ("su", ("words", 7))}
    with message_bus(tmp_path) as address, service(address, (NAME,), lambda: answers) as thing:
        made = Bus(address, signals.append)
        made.listen(MatchRule(type="signal", sender=NAME))
        made.ask(THING, "Say", heard.append, "s", ("please",))
        assert heard == []
        until(made, lambda: heard)
        made.ask(THING, "Unknown", heard.append)
        until(made, lambda: len(heard) == 2)
        made.ask(DBusAddress("/x", "org.example.Nobody", "org.example.Nobody"), "Say", heard.append)
        until(made, lambda: len(heard) == 3)
        assert heard == [("words", 7), None, None]
        thing.signal("/thing", NAME, "Changed", "b", (True,))
        until(made, lambda: [each for each in signals if each.header.fields[HeaderFields.member] == "Changed"])
        assert signals[-1].body == (True,)
    with pytest.raises(BusGoneError):
        until(made, lambda: False)
    with pytest.raises(BusGoneError):
        until(made, lambda: made.ask(THING, "Say", heard.append))
    made.close()


@pytest.mark.parametrize("said", [b"", b"REJECTED EXTERNAL\r\n", b"x" * 9000, b"OK 1234\r\n junk"])
def test_who_is_no_bus_is_let_go_of(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "bus"))
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as caller:
                caller.recv(1000)
                caller.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(BusGoneError):
            Bus(f"unix:path={tmp_path}/bus", lambda _: None)
        thread.join()


@pytest.mark.parametrize("address", ["unix:path=/none", "tcp:host=far,port=1", "nonsense", ""])
def test_who_is_not_there_is_gone(address: str) -> None:
    with pytest.raises(BusGoneError):
        Bus(address, lambda _: None)


@pytest.mark.parametrize(
    "said",
    [b"l\xff\0\1" + bytes(4) + b"\1" + bytes(7), b"l\2\0\1" + b"\xff\xff\xff\x0f\1" + bytes(90_000)],
    ids=["of no kind", "without an end"],
)
def test_nonsense_after_the_greeting_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(bus, "MESSAGE_BYTES_MAX", 80_000)
    monkeypatch.setattr(bus, "GREETING_S", 20)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "bus"))
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as caller:
                caller.recv(1000)
                caller.sendall(b"OK 1234\r\n")
                heard = b""
                while b"Hello" not in heard:
                    heard += caller.recv(1000)
                caller.sendall(said)
                caller.recv(1000)  # until we close

        thread = threading.Thread(target=serve)
        thread.start()
        made = Bus(f"unix:path={tmp_path}/bus", lambda _: None)
        with pytest.raises(BusGoneError, match="it sends"):
            until(made, lambda: False)
        made.close()
        thread.join()


def test_a_bus_that_never_answers_is_asked_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "GREETING_S", 20)
    monkeypatch.setattr(bus, "PENDING_MAX", 3)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "bus"))
        listening.listen()
        held = []

        def serve() -> None:
            held.append(listening.accept()[0])
            held[0].recv(1000)
            held[0].sendall(b"OK 1234\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        made = Bus(f"unix:path={tmp_path}/bus", lambda _: None)
        thread.join()
        made.look()
        for _ in range(2):
            made.call(new_method_call(THING, "Say"), lambda _: None)
        with pytest.raises(BusGoneError, match="answers nothing"):
            made.call(new_method_call(THING, "Say"), lambda _: None)
        made.close()
        held[0].close()


def test_a_descriptor_that_is_too_high_for_select_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "GREETING_S", 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "bus"))
        listening.listen()

        def serve() -> None:
            held.append(listening.accept()[0])
            held[0].recv(1000)
            held[0].sendall(b"OK 1234\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        made = Bus(f"unix:path={tmp_path}/bus", lambda _: None)
        thread.join()
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            high = fcntl.fcntl(made._socket.fileno(), fcntl.F_DUPFD_CLOEXEC, 1024)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        made._socket.close()
        made._socket = socket.socket(fileno=high)
        made.look(0.001)
        held[0].close()
        with pytest.raises(BusGoneError):
            until(made, lambda: False)
        made.close()
