"""What the local API is asked, and answers, about results of jobs: part of ``control``."""

from typing import Annotated

from msgspec import Meta

from p2pq.wire.peercontrol import Said


class Results(Said, frozen=True, kw_only=True):
    """Write a job's results out (again). Item: Wrote."""

    job: Annotated[str, Meta(min_length=1, max_length=64)]
    to: str = ""
    """An absolute folder; empty: where they belong."""


class Wrote(Said, frozen=True, kw_only=True):
    """Results were written out."""

    folder: str
    tasks: int
