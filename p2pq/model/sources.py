"""What the tasks of a job of commands differ in: input sources, whose values multiply."""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from p2pq.errors import UsageError
from p2pq.model.job import TASKS_MAX
from p2pq.model.params import VALUE_CHARS_MAX, Axis

COLUMNS_MAX: Final = 1024
SOURCES_MAX: Final = 32

Value = Annotated[str, Meta(max_length=VALUE_CHARS_MAX)]


class Source(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One input source: rows of as many columns, one after another; the last may be short. Linked sources are columns of one."""

    values: Annotated[tuple[Value, ...], Meta(min_length=1)]
    columns: Annotated[int, Meta(ge=1, le=COLUMNS_MAX)] = 1

    def rows(self) -> int:
        """Return how many rows there are."""
        return -(-len(self.values) // self.columns)

    def row(self, position: int) -> tuple[str, ...]:
        """Return one row."""
        return self.values[position * self.columns : (position + 1) * self.columns]


def count(sources: Sequence[Source]) -> int:
    """Return how many tasks some sources make; without any, one.

    Raises:
        UsageError: more than TASKS_MAX.
    """
    total = 1
    for source in sources:
        total *= source.rows()
    if total > TASKS_MAX:
        raise UsageError(f"the input makes {total} tasks; the most is {TASKS_MAX}")
    return total


def values(sources: Sequence[Source], index: int) -> tuple[str, ...]:
    """Return the values of a task, of all columns in order; the last source varies fastest."""
    rows = []
    for source in reversed(sources):
        index, position = divmod(index, source.rows())
        rows.append(source.row(position))
    return tuple(value for row in reversed(rows) for value in row)


def axes(sources: Sequence[Source]) -> tuple[Axis, ...]:
    """Return sources as people are shown them: named by the numbers of their columns."""
    shown = []
    first = 1
    for source in sources:
        last = first + source.columns - 1
        name = str(first) if first == last else f"{first}-{last}"
        rows = source.values if source.columns == 1 else map(source.row, range(source.rows()))
        shown.append(Axis(name, tuple(row if isinstance(row, str) else "\t".join(row) for row in rows)))
        first = last + 1
    return tuple(shown)
