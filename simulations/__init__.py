"""Thousands of nodes on a virtual clock, driving the same core as the daemon does."""
