"""What the local API may ask of the running core: questions only."""

from collections.abc import Callable

from p2pq.core.node import Node
from p2pq.core.placement import TaskSnapshot
from p2pq.core.through import cluster_of
from p2pq.core.views import PeerView
from p2pq.errors import RefusedError
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, plain, short, to_text
from p2pq.wire.objects import ResultItem

ID_PREFIX_CHARS_MIN = 4
_UNTOLD = "label a node so, or submit without --need env=uv"
_TOLD = "`p2pq doctor` there says why it builds no environments; `--env none` runs the job with Python as it is there"


class Scheduler:
    """Reads the core's snapshots; names nodes as people do."""

    def __init__(self, node: Node, *, me: NodeId, name: str, mono: Callable[[], Mono]) -> None:
        """Read that core; ``mono`` is the clock that it runs on."""
        self._node = node
        self.me = me
        self._name = name
        self._mono = mono
        self._names: dict[NodeId, str] = {}
        self._clusters: dict[NodeId, NodeId] = {}
        """Of each node that may be a bridge: the id under which it speaks for others, which is no node's and nobody's to see."""

    def task(self, job: JobId, task: int) -> TaskSnapshot | None:
        """Return a task of a live job."""
        found = self._node.tasks(job, task, 1) if self._node.job(job) is not None else []
        return found[0] if found else None

    def collecting(self, lease: LeaseId) -> ResultItem | None:
        """Return the result that is being collected under a lease; None if it is not wanted any more."""
        return self._node.collecting(lease)

    def why(self, job: JobId, task: int | None) -> str | None:
        """Return one sentence about a live job or one of its tasks, or None."""
        found = self._node.why(job, task, self._mono(), self.name_of)
        return None if found is None else found.replace(_UNTOLD, _TOLD)

    def remember(self, node: NodeId, name: str) -> None:
        """Learn what a node is called."""
        self._names[node] = name
        self._clusters[cluster_of(node)] = node

    def name_of(self, node: NodeId) -> str:
        """Return what people call a node, or the bridge of a cluster; the beginning of its id where nobody said."""
        node = self._clusters.get(node, node)
        if node == self.me:
            return self._name
        if node not in self._names and (name := self._node.name_of(node)):
            self._names[node] = name  # it may take part no more when people ask for it again
        return self._names.get(node) or short(node)

    def peers(self) -> tuple[PeerView, ...]:
        """Return the other nodes, as this one sees them."""
        return self._node.peers(self._mono())

    def resolve_node(self, text: str) -> NodeId:
        """Return the one node of that name, or whose id begins so.

        Raises:
            RefusedError: none is known, or more than one.
        """
        for peer in self._node.peers(self._mono()):
            if peer.id is not None and peer.id not in self._names and peer.name:
                self._names[peer.id] = peer.name
        known = {**self._names, self.me: self._name}
        wanted = plain(text)
        found = [node for node, name in known.items() if name == text]
        if not found and len(wanted) >= ID_PREFIX_CHARS_MIN:
            found = [node for node in known if to_text(node).startswith(wanted)]
        if not found:
            raise RefusedError(f"no node called {text!r} is known here; see `p2pq peers`")
        if len(found) > 1:
            raise RefusedError(f"{text!r} could be {len(found)} nodes; use the id, see `p2pq peers`")
        return found[0]
