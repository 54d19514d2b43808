"""Bytes to messages and back: pure, bounded, versioned.

``prims`` is the only importer of nacl; ``noise`` and ``session`` make links; ``objects`` are the signed things that cross
nodes; ``messages`` is what linked peers say; ``tree`` is a folder as encrypted chunks; ``control`` is the local API.
"""
