"""Leaves a tree that is hard to delete: deep, unreadable, with many files and names that a cleaner might use."""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PTH101, PTH102, PTH103, PTH112, PTH118, PTH123, PTH211

import os

for root in ("/job", "/tmp", "/dev/shm") if os.path.isdir("/job") and os.getpid() < 100 else (".",):
    os.chdir(root)
    for number in range(2000):
        os.close(os.open(f"file {number}", os.O_CREAT | os.O_WRONLY, 0))
    os.mkdir(".p2pq-flatten-0")
    for name in (".p2pq-flatten-0/x", ".p2pq-flatten-1"):
        with open(name, "w"):
            pass
    os.symlink("/", "root")
    os.mkfifo("fifo")
    for _ in range(200):
        os.mkdir("d" * 100)
        os.symlink("/etc", "etc")
        os.chdir("d" * 100)
    os.chdir("/")
    closed = os.path.join(root, "closed")
    if root != ".":
        os.makedirs(closed + "/in")
        os.chmod(closed + "/in", 0)
        os.chmod(closed, 0)
        os.chmod(root, 0)
