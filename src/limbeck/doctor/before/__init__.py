"""Checks of a recipe, before compute, one file each."""
