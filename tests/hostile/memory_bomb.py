"""Takes memory in steps and keeps it, alone or in a child, at most 2 GiB."""
# ruff: noqa: PTH, SIM105, PERF401  plain system calls, as an attacker writes them

import os
import sys

if sys.argv[1:] == ["child"]:
    for _ in range(3):
        os.fork()
held = []
for _ in range(128):
    held.append(bytearray(b"x") * (16 << 20))
    print(len(held), flush=True)
