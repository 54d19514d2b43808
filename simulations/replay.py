"""``python -m simulations replay FILE``: run a flight record through the core again, and show what it decided and why.

The record (``p2pq/core/flight.py``) holds the beginning and every event; the core decides anew, and each decision must be the
recorded one. What is shown holds no keys: ids are shortened and other bytes are counted.
"""

import argparse
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from p2pq.core import flight
from p2pq.core.effects import Effect
from p2pq.errors import P2PQError, Reject
from p2pq.model.ids import Mono, short
from simulations.gist import Story, gist

CONTEXT = 10
"""Decisions that are shown before a difference."""
SHOWS = ("all", "events", "effects", "none")


class Differs(Exception):  # noqa: N818  what was found, not what failed
    """The core did not decide as it did then."""


class Replay:
    """One pass through a record. ``run`` may be called once."""

    def __init__(self, arguments: argparse.Namespace, header: flight.Header, say: Callable[[str], None]) -> None:
        """Begin the recorded life anew.

        Raises:
            Reject: the header does not fit together.
        """
        self._arguments = arguments
        self._header = header
        self._say = say
        self._node = header.begin()
        self._story = Story(arguments.job)
        self._before: deque[str] = deque(maxlen=CONTEXT)
        self.events = 0
        self.effects = 0
        self.broke = ""
        """How the core broke, if it did so then too."""

    def run(self, entries: flight.Entries) -> None:
        """Take in all entries.

        Raises:
            Differs: a decision is another than the recorded one; the message says which.
            Reject: the record is damaged.
        """
        heard: flight.Heard | None = None
        for entry in entries:
            if isinstance(entry, flight.Heard):
                if self._arguments.until is not None and self._seconds(entry.now) > self._arguments.until:
                    return
                heard = entry
                continue
            self._compare(heard, entry)
            heard = None
        if heard is not None:
            # Killed between the two, or by this very event: what was decided then is not known.
            self._compare(heard, None)

    def _seconds(self, now: Mono) -> float:
        return now - self._header.now

    def _compare(self, heard: flight.Heard | None, then: flight.Decided | flight.Broke | None) -> None:
        """Let the core decide on an event (or check itself, where that is how it broke) and compare."""
        effects: list[Effect] = []
        broke = ""
        try:
            if heard is None:
                self._node.check()
            else:
                effects = self._node.handle(heard.event, heard.now)
        except Exception as error:  # noqa: BLE001  whatever it breaks by is what is looked for
            broke = str(error) if isinstance(error, AssertionError) else repr(error)
        if heard is not None:
            self.events += 1
            self.effects += len(effects)
            self._show(heard, effects)
        self._judge(flight.Broke(broke) if broke else flight.decided(effects), then, effects)
        self.broke = broke
        if self._arguments.check and heard is not None and not broke:
            try:
                self._node.check()
            except AssertionError as error:
                raise Differs(f"after that event an invariant does not hold: {error}") from error

    def _judge(
        self, now: flight.Decided | flight.Broke, then: flight.Decided | flight.Broke | None, effects: list[Effect]
    ) -> None:
        if then is None or now == then:
            return
        lines = [*self._before, f"decision {self.events} differs:"]
        for when, what in (("recorded", then), ("replayed", now)):
            count = (
                f"{what.count} effects, digest {what.digest.hex()}" if isinstance(what, flight.Decided) else what.error
            )
            lines.append(f"  {when}: {count}")
        raise Differs("\n".join([*lines, *(f"    {gist(effect)}" for effect in effects)]))

    def _show(self, heard: flight.Heard, effects: list[Effect]) -> None:
        shown, at_s = self._arguments.show, self._seconds(heard.now)
        told = self._story.concerns(heard.event, effects)
        line = f"{at_s:+12.6f}  {gist(heard.event)}"
        self._before.append(f"{line}  ->  {'; '.join(map(gist, effects)) or '-'}")
        begins = self._arguments.begins
        if shown == "none" or not told or (begins is not None and at_s < begins):
            return
        match shown:
            case "events":
                self._say(line)
            case "effects":
                for effect in effects:
                    self._say(f"{at_s:+12.6f}  {gist(effect)}")
            case _:
                self._say(self._before[-1])


def _head(header: flight.Header) -> str:
    found = header.restored
    begun = datetime.fromtimestamp(header.wall / 1000, UTC).isoformat(timespec="milliseconds")
    return (
        f"{header.identity.name} ({short(header.identity.node)}), {header.software}, began {begun} with {len(found.jobs)} jobs,"
        f" {len(found.leases)} leases, {len(found.kept)} kept results, {len(found.peers)} known peers"
    )


def parser() -> argparse.ArgumentParser:
    """Return what understands the command line."""
    made = argparse.ArgumentParser(prog="python -m simulations replay", description=__doc__)
    made.add_argument("file", type=Path, help="HOME/flight/NNNN.flight; as secret as the home")
    made.add_argument("--from", dest="begins", type=float, metavar="T", help="show from so many seconds on")
    made.add_argument("--until", type=float, metavar="T", help="stop after so many seconds")
    made.add_argument("--show", choices=SHOWS, default="all", help="what of each decision (default: all)")
    made.add_argument("--job", default="", metavar="ID", help="show only what concerns that job")
    made.add_argument("--check", action="store_true", help="check the core's invariants after each event")
    return made


def main(argv: Sequence[str], say: Callable[[str], None] = print) -> int:
    """Return the exit code: 1 where a decision differs or the record is damaged, 2 where there is none."""
    arguments = parser().parse_args(argv)
    try:
        with arguments.file.open("rb") as file:
            cuts: list[bool] = []
            header, entries = flight.read(file.read, lambda: cuts.append(True))
            say(_head(header))
            return _outcome(Replay(arguments, header, say), entries, say, cuts)
    except BrokenPipeError:
        # Whoever reads has seen enough (`| head`); the interpreter must not complain of it at its end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, P2PQError) as error:
        print(f"{arguments.file}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 2


def _outcome(replay: Replay, entries: flight.Entries, say: Callable[[str], None], cuts: list[bool]) -> int:
    try:
        replay.run(entries)
    except Differs as difference:
        say(f"{difference}\n{replay.events} events, {replay.effects} effects, then a difference")
        return 1
    except Reject as error:
        say(f"{replay.events} events, {replay.effects} effects, 0 differences; the rest cannot be read ({error})")
        return 1
    end = f"; then the core broke, as it did then: {replay.broke}" if replay.broke else ""
    cut = "; the record was cut off in the middle of its last entry" if cuts else ""
    say(f"{replay.events} events, {replay.effects} effects, 0 differences{end}{cut}")
    return 0
