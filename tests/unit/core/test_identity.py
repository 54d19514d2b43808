"""An identity names its node in logs and never shows a secret."""

from p2pq.core.identity import Identity

SECRET = b"ed25519-seed-of-thirty-two-bytes"
PREKEY_SECRET = b"x25519-secret-of-thirty-two-byte"


def test_repr_shows_who_and_no_secret():
    identity = Identity(
        node=b"n" * 32,
        secret=SECRET,
        mesh=b"m" * 32,
        name="desk",
        owner="alice",
        caps=("submit", "work"),
        boot=b"b" * 16,
        prekey_secret=PREKEY_SECRET,
        prekey=b"p" * 32,
    )
    assert repr(identity) == "Identity('desk', owner='alice')"
    for secret in (SECRET, PREKEY_SECRET):
        assert secret.decode() not in f"{identity} {identity!r}"
