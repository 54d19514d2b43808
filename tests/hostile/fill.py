"""Fills the folders that it was told of, to a bound; prints how much each one took."""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PTH108, PTH118, PTH123, SIM105

import json
import os
import sys

BOUND = 400 << 20
block = b"x" * (1 << 20)
took = {}
for folder in sys.argv[1:]:
    took[folder] = 0
    name = os.path.join(folder, "filling")
    try:
        with open(name, "wb", buffering=0) as file:
            while took[folder] < BOUND:
                took[folder] += file.write(block)
    except OSError:
        pass
    try:
        os.unlink(name)
    except OSError:
        pass
print(json.dumps(took))
