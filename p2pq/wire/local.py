"""Numbers of the local API (``wire.control``), for both ends of it. Imports nothing, as ``p2pq run`` has to start at once."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

API_VERSION: "Final" = 1
FRAME_BYTES_MAX: "Final" = 64 << 20
LENGTH_BYTES: "Final" = 4
"""Before each frame's content, big endian."""
CONNECT_S: "Final" = 5.0
"""A node that has not greeted back by then does not answer."""
