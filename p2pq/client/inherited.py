"""What a command has of the process that asks for it."""

import os


def environment() -> bytes:
    """Return this process's environment as ``SubmitCommands`` has it."""
    return b"".join(key + b"=" + value + b"\0" for key, value in os.environb.items())


def umask() -> int:
    """Return the modes that the user does not want on files; it can only be read by setting it."""
    found = os.umask(0o077)
    os.umask(found)
    return found
