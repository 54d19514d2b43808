"""Leaves a daemon behind: forked twice, in a session of its own, which writes into the task's folder for ever."""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PTH123

import os
import signal
import sys
import time

read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.write(write, b"x")
        while True:
            try:
                with open("survivor", "a") as file:
                    file.write("x")
            except OSError:
                pass
            time.sleep(0.002)
    os._exit(0)
os.read(read, 1)
if sys.argv[1:] == ["kill-runner"]:
    os.kill(os.getppid(), signal.SIGKILL)
if sys.argv[1:] == ["stop-runner"]:
    os.kill(os.getppid(), signal.SIGSTOP)
