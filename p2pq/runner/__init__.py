"""The small program that executes tasks inside the sandbox; standard library only."""
