"""Checks of a run, from its folder alone, one file each."""
