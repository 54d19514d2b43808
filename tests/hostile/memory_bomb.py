"""Takes memory in steps and keeps it, alone or in a child, at most 2 GiB."""

import os
import sys

if sys.argv[1:] == ["child"]:
    for _ in range(3):
        os.fork()
held = []
for _ in range(128):
    held.append(bytearray(b"x") * (16 << 20))
    print(len(held), flush=True)
