"""Which test shows the effect of which command and option.

``@covers("submit --array")`` stands on a test that would fail if that option did nothing. tests/tidy/test_commands.py
reads these marks from the source, compares them with the commands there are, and checks that the test names the option.
"""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def covers(*what: str) -> Callable[[F], F]:
    """Say what a test covers: ``COMMAND`` or ``COMMAND --option`` each."""
    assert what

    def mark(test: F) -> F:
        return test

    return mark
