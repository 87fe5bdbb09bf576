"""Filters: one file each."""
