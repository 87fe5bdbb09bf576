"""Differences between how two models relate the samples of a batch; one a file."""
