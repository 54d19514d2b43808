"""Decisions: pure state machines, ``handle(event, now) -> list[Effect]``.

``queue`` is the master, ``worker`` the worker, ``membership`` who is linked, ``fairness`` whose turn it is,
``leases`` the right to run; ``node`` composes them. ``events`` go in, ``effects`` come out. Nothing here does I/O,
reads a clock or draws entropy.
"""
