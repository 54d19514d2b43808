"""How fast p2pq is: ``python -m benchmarks``. Real nodes, real disks, goals beside the medians."""
