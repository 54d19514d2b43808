"""For programs that run as tasks: what their job was submitted with. Standard library only, as a task may have no more."""

import os
import pickle  # noqa: TID251  what this job's own owner has sent along with the program that opens it
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["data"]


@cache
def data() -> Any:  # noqa: ANN401  whatever it is
    """Return what was passed as ``data=`` to ``Client.submit``; in one process always the same object.

    Raises:
        RuntimeError: this is no task, or its job has none.
    """
    params = os.environ.get("P2PQ_PARAMS")
    if params is None:
        raise RuntimeError("this is no task of p2pq: data() returns what a job was submitted with")
    try:
        raw = Path(params).with_name("data.pickle").read_bytes()
    except FileNotFoundError as error:
        raise RuntimeError("this job was submitted without data; pass it: client.submit(folder, data=...)") from error
    return pickle.loads(raw)  # noqa: S301  see above
