"""Fixed people, keys and entropy for the wire's tests: the same bytes in every run."""

import hashlib
from collections.abc import Callable

from p2pq.model.ids import NodeId, Wall
from p2pq.wire import prims, session, trust

WALL = Wall(1_800_000_000_000)
DAY_MS = 24 * 3600 * 1000


def entropy(name: str = "test") -> Callable[[int], bytes]:
    """Return a stream of bytes that depends on the name only."""
    counter = 0

    def draw(size: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"{name} {counter}".encode()).digest(size)

    return draw


def secret(name: str) -> bytes:
    return entropy(name)(32)


ROOT = prims.SigningKey(secret("root"))
OTHER_ROOT = prims.SigningKey(secret("other root"))
ADMIN = prims.SigningKey(secret("admin"))
ALICE = prims.SigningKey(secret("alice"))
BOB = prims.SigningKey(secret("bob"))
PSK = secret("psk")


def subject(key, name="node", *, owner="owner", caps=("submit", "work")):
    return trust.Subject(node=NodeId(key.public), name=name, owner=owner, caps=caps)


def admin_cert(key=ADMIN, root=ROOT, *, caps=("admin", "bridge", "submit", "work"), wall=WALL, **more):
    return trust.issue_admin(root, subject(key, "admin", caps=caps), serial=b"s" * 16, wall=wall, **more)


def member_certs(key=ALICE, name="alice", *, caps=("submit", "work"), wall=WALL, **more):
    admin = admin_cert(wall=wall)
    member = trust.issue_member(
        ADMIN, admin, ROOT.public, subject(key, name, caps=caps), serial=b"m" * 16, wall=wall, **more
    )
    return (member, admin)


def local(key=ALICE, name="alice", *, certs=None, **more):
    fields = {
        "key": key,
        "static": secret(f"{name} static"),
        "boot": secret(f"{name} boot")[:16],
        "prekey": prims.x25519_public(secret(f"{name} prekey")),
        "certs": member_certs(key, name) if certs is None else certs,
        "addresses": ("10.0.0.1:7077", "[fe80::1]:7077"),
        "software": "p2pq 0.1",
    }
    return session.Local(**(fields | more))


def mesh(*psks, root=ROOT, banned=()):
    return session.Mesh(
        root=root.public, psks=psks or (PSK,), is_banned=lambda cert: cert.sub in banned or cert.owner in banned
    )


def handshake(alice=None, bob=None, *, alice_mesh=None, bob_mesh=None, wall=WALL):
    """Run a whole link handshake; alice dials. Returns both sides and the three messages."""
    dialler = session.Initiator(alice or local(), alice_mesh or mesh(), entropy("dial"))
    other = session.Responder(bob or local(BOB, "bob"), bob_mesh or mesh(), entropy("answer"))
    first = dialler.start()
    second = other.receive(first, wall)
    third = dialler.receive(second, wall)
    assert other.receive(third, wall) == b""
    return dialler, other, (first, second, third)
