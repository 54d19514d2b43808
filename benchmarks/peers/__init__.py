"""p2pq beside what people use now: the same work, by turns, in one run; medians, and ratios within each run."""
