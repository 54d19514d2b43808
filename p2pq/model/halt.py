"""When a job stops by itself because enough of its tasks failed (or succeeded): GNU parallel's ``--halt``."""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.errors import UsageError
from p2pq.model.job import TASKS_MAX

OVER_MIN: Final = 3
"""A share of the tasks that are over says something once there are so many of them."""
_GRAMMAR: Final = re.compile(r"(now|soon), ?(fail|success|done)=([0-9]{1,8})(%?)")


class Halt(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The condition, and how hard to stop."""

    now: bool
    """Stop what runs too; otherwise start nothing more and let it run to its end."""
    what: Literal["fail", "success", "done"]
    """What is counted: tasks that failed, that succeeded, or that are over either way."""
    count: Annotated[int, Meta(ge=1, le=TASKS_MAX)]
    """So many tasks; with ``percent``, in hundredths of those that are over (``done``: of all)."""
    percent: bool = False

    def reached(self, *, done: int, failed: int, total: int) -> bool:
        """Tell whether it is time to stop.

        Args:
            done: tasks of this job that succeeded.
            failed: tasks that failed for good.
            total: all tasks of the job.
        """
        over = done + failed
        found = self._found(done, failed)
        if not self.percent:
            return found >= self.count
        if self.what == "done":
            return 100 * over >= self.count * total
        return over >= OVER_MIN and 100 * found >= self.count * over

    def sentence(self, *, done: int, failed: int) -> str:
        """Say that it was time, and after what."""
        found = self._found(done, failed)
        one, many = {"fail": ("failure", "failures"), "success": ("success", "successes"), "done": ("task", "tasks")}[
            self.what
        ]
        share = f" in {done + failed} tasks" if self.percent and self.what != "done" else ""
        return f"halted after {found} {one if found == 1 else many}{share}"

    def _found(self, done: int, failed: int) -> int:
        return {"fail": failed, "success": done, "done": done + failed}[self.what]


def parse_halt(text: str) -> Halt | None:
    """Parse ``never``, ``now,fail=3``, ``soon,fail=10%``, and the same with ``success`` or ``done``.

    Raises:
        UsageError: it is none of these.
    """
    if text == "never":
        return None
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise UsageError(f"--halt {text!r} is not known; write it like never, now,fail=1, soon,fail=3 or now,fail=10%")
    when, what, digits, percent = match.groups()
    count = int(digits)
    if not 1 <= count <= (100 if percent else TASKS_MAX):
        raise UsageError(
            f"--halt {text!r} counts {digits}{percent}; the least is 1, the most 100% or {TASKS_MAX} tasks"
        )
    return Halt(when == "now", what, count, bool(percent))  # type: ignore[arg-type]  # the grammar has just these words
