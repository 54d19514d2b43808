"""Faults planted on purpose, one line each, and what catches them: ``python -m tests.mutations``."""
