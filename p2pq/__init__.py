"""p2pq: a peer-to-peer job mesh. Send a folder to idle machines, get ``results/`` back.

The Python API is ``Client`` and ``AsyncClient``, and what they return. It is loaded when it is first asked for, as the command
line has to be quick.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pq.client.asynchronous import AsyncClient, AsyncJob, AsyncTask
    from p2pq.client.blocking import Client, Job, Task

__version__ = "0.2.0.dev0"
__all__ = ["AsyncClient", "AsyncJob", "AsyncTask", "Client", "Job", "Task", "__version__"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  as the language has it
    """Load the Python API."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    module = "asynchronous" if name.startswith("Async") else "blocking"
    return getattr(importlib.import_module(f"p2pq.client.{module}"), name)
