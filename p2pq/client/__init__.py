"""The Python side of the local API: speaks ``wire.control`` and nothing else."""
