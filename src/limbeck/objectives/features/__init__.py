"""Differences between layers of two models; one a file."""
