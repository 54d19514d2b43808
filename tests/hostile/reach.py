"""Reads files and folders, and connects to sockets, that it was told of; prints what it reached."""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PTH112, PTH123, PTH208

import json
import os
import socket
import sys

asked = json.loads(sys.argv[1])
reached = []
for path in asked["paths"]:
    try:
        if os.path.isdir(path):
            reached += [path] if os.listdir(path) else []
        else:
            with open(path, "rb") as file:
                file.read(1)
            reached.append(path)
    except OSError:
        continue
for name in asked["unix"]:
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(name)
            reached.append(name)
    except OSError:
        continue
for kind, host, port in asked["inet"]:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, getattr(socket, kind)) as sock:
                sock.settimeout(1)
                sock.connect((host, port))
                reached.append(host)
        except OSError:
            continue
print(json.dumps(reached))
