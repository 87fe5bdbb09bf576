"""Divergences between what two models say of one row; one a file."""
