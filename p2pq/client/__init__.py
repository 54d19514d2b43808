"""The Python client of the local API; speaks ``wire.control`` only."""
