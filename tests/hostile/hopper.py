"""Runs on from process to process, each in a session of its own and with no variables: whoever looks sees one that has ended."""

import os
import sys

if sys.argv[1:] != ["hopping"]:
    if os.fork():
        os._exit(0)
    os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, "hopping"], {})
os.write(1, b"x")
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
