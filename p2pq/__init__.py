"""p2pq: a peer-to-peer job mesh. Send a folder to idle machines, get ``results/`` back.

The Python API is ``Client`` and ``AsyncClient``, with what they return, and ``Executor``. It is loaded when it is first asked
for, as the command line has to be quick.
"""

TYPE_CHECKING = False  # importing typing for real would cost every process of an Executor 15 ms
if TYPE_CHECKING:
    from concurrent.futures import as_completed, wait
    from typing import Any

    from p2pq.client.asynchronous import AsyncClient, AsyncJob, AsyncTask
    from p2pq.client.blocking import Client, Job, Task
    from p2pq.client.executor import Executor
    from p2pq.client.plain import register

__version__ = "0.2.0.dev0"

_PLACES = {
    "AsyncClient": "p2pq.client.asynchronous",
    "AsyncJob": "p2pq.client.asynchronous",
    "AsyncTask": "p2pq.client.asynchronous",
    "Client": "p2pq.client.blocking",
    "Executor": "p2pq.client.executor",
    "Job": "p2pq.client.blocking",
    "Task": "p2pq.client.blocking",
    "register": "p2pq.client.plain",
    "as_completed": "concurrent.futures",
    "wait": "concurrent.futures",
}
__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AsyncTask",
    "Client",
    "Executor",
    "Job",
    "Task",
    "__version__",
    "as_completed",
    "register",
    "wait",
]


def __getattr__(name: str) -> "Any":  # noqa: ANN401  as the language has it
    """Load the Python API."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    return getattr(importlib.import_module(_PLACES[name]), name)
