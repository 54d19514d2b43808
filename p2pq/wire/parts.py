"""What the local API's view of a node is made of: its policy, what runs on it, what it keeps for others."""

from typing import Literal

import msgspec


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether guests may run now and why not.

    ``off``: they are not taken at all, or not yet. ``hold`` to ``kill``: what this machine's owner wants (``model.owner``).
    """

    state: Literal["run", "hold", "suspend", "evict", "kill", "off", "draining"]
    reason: str = ""


class RunningView(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that runs on this node."""

    job: str
    task: int
    owner: str
    node: str
    """Whose job it is: the master's name."""
    seconds: float
    own: bool
    state: str = "running"
    """``starting`` (files are fetched), ``running``, ``ending``, ``packing`` (it has ended, and its slot is free), or
    ``suspended``: for this machine's owner, or because this node slept and asks whether that is its own."""
    progress: float | None = None
    """From 0 to 1, as the task itself says in ``results/.progress``; None where it says nothing."""


class KeptView(msgspec.Struct, frozen=True, kw_only=True):
    """Results that wait on this node until the node that gave the tasks acknowledges them."""

    owner: str
    """Whose jobs they are of."""
    node: str
    """Who has not acknowledged them: the master's name."""
    results: int
    bytes: int
    oldest_s: float
    full: bool
    """Nothing more is taken of that node before it has acknowledged some."""


class KeptLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept: results and bytes for each master, and for how long."""

    results: int
    bytes: int
    days: int


class LeafView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker for which a bridge speaks."""

    node: str
    attempts: int
    """Of that master; those that have not ended."""


class SpokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A master to which a bridge speaks for its leaves."""

    node: str
    stock: int
    """Attempts that no leaf has been given yet."""
    leaves: tuple[LeafView, ...] = ()
