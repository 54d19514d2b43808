"""Every exception of p2pq: whose fault it is, whether a retry can help, which exit code it gives.

The class docstring is the sentence shown where no better one is given; the message says what to do next.
"""

TYPE_CHECKING = False  # importing typing for real would cost `p2pq run` 5 ms
if TYPE_CHECKING:
    from typing import ClassVar


class P2PQError(Exception):
    """Something in p2pq went wrong."""

    retryable: "ClassVar[bool]" = False
    exit_code: "ClassVar[int]" = 4  # 1 would say that tasks ran and failed


class UsageError(P2PQError):
    """The command or its input is not usable as given (a bad option, a folder without a main)."""

    exit_code: "ClassVar[int]" = 2


class ConfigError(UsageError):
    """A setting is wrong; the message names the file, the key and what was expected."""


class Reject(P2PQError):  # noqa: N818  the name says what the receiver does, not that it failed
    """Bytes from outside failed a check; the reason is a short, stable phrase without the bytes themselves."""

    def __init__(self, reason: str) -> None:
        """Keep the reason, which never holds attacker-controlled text."""
        super().__init__(reason)
        self.reason = reason


class ProtocolError(P2PQError):
    """A rule of the protocol was broken."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the link is closed."""


class LocalProtocolError(ProtocolError):
    """This node was about to break the protocol: a bug, raised before sending."""


class HandshakeError(RemoteProtocolError):
    """The peer did not prove that it is a member of this mesh."""


class VersionError(RemoteProtocolError):
    """The peer speaks a protocol version that this node does not."""


class LinkError(P2PQError):
    """A connection to a peer failed."""

    retryable: "ClassVar[bool]" = True


class DialError(LinkError):
    """No connection to that address could be made."""


class NodeUnreachableError(LinkError):
    """No node could be reached or started; see `p2pq doctor`."""

    exit_code: "ClassVar[int]" = 3


class NodeSilentError(NodeUnreachableError):
    """A node runs, but it does not answer; kill it and start it again."""


class RefusedError(P2PQError):
    """The node refused; the message gives the reason."""

    exit_code: "ClassVar[int]" = 4


class NotFoundError(RefusedError):
    """There is no such job, task, member or peer here."""


class StorageError(P2PQError):
    """The store or the disk failed."""


class StoreDamagedError(StorageError):
    """The store is damaged or missing; nothing was changed."""


class DiskFullError(StorageError):
    """The disk is full; nothing was lost. Free some space and try again."""

    retryable: "ClassVar[bool]" = True


class SandboxError(P2PQError):
    """The sandbox could not be set up; the message says what is missing."""


class UntrustedResultError(P2PQError):
    """A call on another machine returned what does not travel as data; the message says what to do."""


class RemoteError(P2PQError):
    """A call on another machine raised an exception of a type that is not made again here; the message says which."""


class BuildError(P2PQError):
    """The packages that a job asks for could not be had; the message says which, and why."""

    retryable: "ClassVar[bool]" = True


class NotRunError(P2PQError):
    """The command of `p2pq run` was not run, or how it ended is not known; the message says why."""

    exit_code: "ClassVar[int]" = 125  # as env, timeout and nohup have it: every smaller one may be the command's own


class EachFailedError(P2PQError):
    """The function of `--each` ended with an exception, which was printed; the job was cancelled."""

    exit_code: "ClassVar[int]" = 1


class InvariantError(AssertionError):
    """A broken invariant: a bug. The node stops; what it acknowledged is in the store."""
