"""Whose doing it was that a task failed, told from its attempts: the task's own, or its workers'."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from p2pq.core.through import whereabouts
from p2pq.daemon.history import AttemptRow
from p2pq.daemon.requirements import FAILED
from p2pq.model.ids import NodeId
from p2pq.model.job import Outcome

_NAMED_MAX: Final = 4
"""Ends of attempts that a sentence names; the others are counted."""
NOBODYS: Final = ("cancelled", "late", "draining", "no-manifest", "evicted", "recalled", "refused")
"""Ends of leases that say nothing about task or worker."""

NameOf = Callable[[NodeId], str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who is at fault, as a clause, and which attempt has output worth reading (0: none has)."""

    clause: str
    attempt: int


def judge(attempts: Sequence[AttemptRow], name_of: NameOf) -> Verdict | None:
    """Say who is at fault for the attempts of one task that came to nothing; None if none did.

    Args:
        attempts: all of the task, in order.
        name_of: what people call a node.
    """
    # Who was told to end, and left a checkpoint, has not failed.
    ended = (each for each in attempts if each.outcome is not None and each.outcome.reason != "saved")
    own = [each for each in ended if each.outcome is not None and not each.outcome.ok]
    counted = [each for each in own if each.counted]
    faults = [each for each in attempts if each.outcome is None and each.fault not in (None, *NOBODYS)]
    clauses = []
    if counted:
        nodes = list(dict.fromkeys(each.worker for each in counted))
        where = _listed(_ends(counted, name_of))
        if len(nodes) > 1:
            clauses.append(f"the task is at fault, it failed on {len(nodes)} machines ({where})")
        else:
            clauses.append(f"the task failed by its own doing ({where}), and nowhere else was it tried")
    died = [each for each in own if not each.counted and each.outcome and each.outcome.reason == "runner-died"]
    suspect = [each for each in own if not each.counted and each not in died]
    if suspect:
        where = _listed(_ends(suspect, name_of))
        clauses.append(f"attempts fail there that succeed elsewhere, which counts against the machine ({where})")
    if died:
        clauses.append(f"its runner died, which counts from the second time on ({_listed(_ends(died, name_of))})")
    if faults:
        one, own_doing = len(faults) == 1, "" if counted else ", not the task's"
        what = (
            "1 attempt ended by its worker's doing" if one else f"{len(faults)} attempts ended by their workers' doing"
        )
        clauses.append(f"{what}{own_doing} ({_listed(_ends(faults, name_of))})")
    if not clauses:
        return None
    return Verdict("; ".join(clauses), own[-1].attempt if own else 0)


def how(outcome: Outcome) -> str:
    """Return how an attempt ended, in a word or two."""
    match outcome.reason:
        case "exit":
            return f"exit {outcome.exit}"
        case "signal":
            return f"signal {outcome.signal}"
        case reason:
            return reason


def _ends(attempts: Sequence[AttemptRow], name_of: NameOf) -> list[str]:
    """Return each way of ending with where, without repeats."""
    found: dict[str, list[str]] = {}
    for each in attempts:
        end = how(each.outcome) if each.outcome is not None else each.fault or ""
        if each.detail and (end == "exit 0" or (each.outcome is None and each.detail.startswith(FAILED))):
            end = each.detail
        nodes = found.setdefault(end, [])
        if (name := name_of(whereabouts(each.worker, each.via)[0])) not in nodes:
            nodes.append(name)
    return [f"{end} on {_listed(nodes)}" for end, nodes in found.items()]


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _NAMED_MAX
    return ", ".join(words[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
