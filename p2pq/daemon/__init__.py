"""The outside world: asyncio adapters around the core (links, discovery, store, blobs, runners, local API)."""
