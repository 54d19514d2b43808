"""What shows that a lease was given to whom: the grant and the sub-grants by which it came there (docs/adr/0207).

Bridges remember nothing across a restart, and hear of leases that others gave. Whoever names one has to show these: else anybody
could name, and end, what another leaf runs.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from p2pq.core.identity import Identity
from p2pq.errors import Reject
from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire import sign
from p2pq.wire.handing import hands_on, narrows, open_step
from p2pq.wire.messages import PROOF_BYTES_MAX, PROOFS_MAX
from p2pq.wire.objects import Grant

PROOFS_BYTES_MAX: Final = 4 << 20
"""All that one message shows. What is left out is not believed, and runs again once its lease has expired."""

Proof = tuple[bytes, ...]
"""The signed grant, then the sub-grants, the outermost bridge's first; where the grant is gone, what is left of these."""
Held = Callable[[NodeId], bool]


class _Step(msgspec.Struct, frozen=True):
    """To whom which leases went, and what shows it."""

    to: NodeId
    leases: tuple[LeaseId, ...]
    proof: Proof


def pack(proofs: Iterable[Proof]) -> tuple[bytes, ...]:
    """Return what is in these, each once and after what it builds on; no more than may be said at once."""
    found: dict[bytes, None] = {}
    size = 0
    for proof in proofs:
        new = [each for each in proof if each not in found]
        size += sum(map(len, new))
        if len(found) + len(new) > PROOFS_MAX or size > PROOFS_BYTES_MAX:
            break
        if all(len(each) <= PROOF_BYTES_MAX for each in new):
            found |= dict.fromkeys(new)
    return tuple(found)


def proven(shown: Iterable[bytes], master: NodeId, identity: Identity, held: Held) -> dict[LeaseId, Proof]:
    """Return the leases of a master that went to somebody of whom ``held`` is true, each with what shows it.

    It must begin with that master's grant, or with this very node's word, and go from receiver to receiver. What does not is
    no proof of anything, and ignored.
    """
    steps: dict[bytes, _Step] = {}
    found: dict[LeaseId, Proof] = {}
    for raw in shown:
        try:
            step = _open(raw, master, identity, steps)
        except Reject:
            continue
        steps[sign.digest(raw)] = step
        if held(step.to):
            found |= dict.fromkeys(step.leases, step.proof)
    return found


def _open(raw: bytes, master: NodeId, identity: Identity, above: dict[bytes, _Step]) -> _Step:
    try:
        grant = sign.open_signed(raw, Grant, master)
    except Reject as reject:
        if reject.reason != sign.WRONG_TYPE:
            raise
        return _handed(raw, master, identity, above)
    if (grant.mesh, grant.node) != (identity.mesh, master):
        raise Reject("of another master")
    return _Step(NodeId(grant.to), tuple(item.lease for item in grant.items), (raw,))


def _handed(raw: bytes, master: NodeId, identity: Identity, above: dict[bytes, _Step]) -> _Step:
    step = open_step(raw, identity.mesh, master)
    sub, given = step.sub, above.get(step.sub.parent)
    if given is None and sub.node == identity.node and narrows(sub.leases, sub.leases):
        return _Step(NodeId(sub.to), sub.leases, (raw,))
    if given is None or not hands_on(step, sub.parent, given.to, given.leases):
        raise Reject("of nothing that its bridge was given")
    return _Step(NodeId(sub.to), sub.leases, (*given.proof, raw))
