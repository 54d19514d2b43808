"""A connection to a message bus (D-Bus) that waits only when told to: what is asked now is answered at a later look.

jeepney makes and reads the messages; the socket is ours, so that there is neither a thread nor a wait.
"""

import itertools
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from jeepney import DBusAddress, HeaderFields, MatchRule, Message, MessageFlag, MessageType, new_method_call
from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.bus import get_connectable_addresses
from jeepney.bus_messages import message_bus
from jeepney.low_level import Parser

GREETING_S: Final = 0.02
SYSTEM: Final = "unix:path=/run/dbus/system_bus_socket"
PENDING_MAX: Final = 1000
MESSAGE_BYTES_MAX: Final = 1 << 22
PART_BYTES: Final = 65_536

Answer = Callable[[tuple[Any, ...] | None], None]
"""Is told what a method returned, None where it failed."""


class BusGoneError(Exception):
    """The bus has gone, is silent, or does not let us in."""


class Bus:
    """One connection. Not for several threads."""

    def __init__(self, address: str, on_signal: Callable[[Message], None]) -> None:
        """Connect to the first address of a list as D-Bus writes them, within some milliseconds.

        Raises:
            BusGoneError: nobody is there, or does not let us in.
        """
        self._on_signal = on_signal
        self._parser = Parser()
        self._serials = itertools.count(1)
        self._pending: dict[int, Answer] = {}
        self._unsent = b""
        self._unread = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(GREETING_S)
            self._socket.connect(next(get_connectable_addresses(address)))
            self._greet()
            self._socket.setblocking(False)
            self.call(message_bus.Hello(), lambda _: None)
        except (OSError, BusGoneError, AuthenticationError, ValueError, RuntimeError) as error:
            self._socket.close()
            raise BusGoneError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(
        self,
        address: DBusAddress,
        method: str,
        answer: Answer,
        signature: str | None = None,
        body: tuple[Any, ...] = (),
    ) -> None:
        """Call a method; nobody is started to answer it.

        Raises:
            BusGoneError: the bus has gone.
        """
        self.call(new_method_call(address, method, signature, body), answer)

    def call(self, message: Message, answer: Answer) -> None:
        """Send a message and keep who is told its answer.

        Raises:
            BusGoneError: the bus has gone, or answers nothing.
        """
        if len(self._pending) >= PENDING_MAX:
            raise BusGoneError("it answers nothing")
        serial = next(self._serials)
        message.header.flags = MessageFlag.no_auto_start
        self._pending[serial] = answer
        self._unsent += message.serialise(serial)
        self._send()

    def listen(self, rule: MatchRule) -> None:
        """Hear the signals that a rule describes.

        Raises:
            BusGoneError: the bus has gone.
        """
        self.call(message_bus.AddMatch(rule), lambda _: None)

    def look(self, wait_s: float = 0.0) -> None:
        """Take in what has come, and tell whom it concerns; wait for the first of it for at most ``wait_s``.

        Raises:
            BusGoneError: the bus has gone, or sends what is no message.
        """
        self._send()
        if wait_s > 0:
            poll = select.poll()  # select() refuses descriptors from 1024 on
            poll.register(self._socket, select.POLLIN)
            poll.poll(1000 * wait_s)
        try:
            while part := self._socket.recv(PART_BYTES):
                self._parser.add_data(part)
                self._unread += len(part)
                while (message := self._parser.get_next_message()) is not None:
                    self._unread = 0
                    self._take(message)
                if self._unread > MESSAGE_BYTES_MAX:
                    raise BusGoneError("it sends a message that has no end")
        except BlockingIOError:
            return
        except OSError as error:
            raise BusGoneError(str(error)) from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise BusGoneError(f"it sends what is no message: {error}") from error
        raise BusGoneError("connection closed")

    def _take(self, message: Message) -> None:
        if message.header.message_type is MessageType.signal:
            self._on_signal(message)
            return
        answer = self._pending.pop(message.header.fields.get(HeaderFields.reply_serial, 0), None)
        if answer is not None:
            answer(message.body if message.header.message_type is MessageType.method_return else None)

    def _send(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            raise BusGoneError(str(error)) from error

    def _greet(self) -> None:
        deadline = time.monotonic() + GREETING_S
        authenticator = Authenticator()
        for line in authenticator:
            self._socket.sendall(line)
            if time.monotonic() > deadline:
                raise TimeoutError("no answer")
            part = self._socket.recv(4096)
            if not part:
                raise ConnectionResetError("connection closed")
            authenticator.feed(part)
        self._socket.sendall(BEGIN)
