"""Metrics: figures of recorded predictions, one a file."""
