"""p2pq: a peer-to-peer job mesh. Send a folder to idle machines, get ``results/`` back."""

__version__ = "0.2.0.dev0"
