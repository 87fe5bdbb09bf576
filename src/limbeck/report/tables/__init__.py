"""Rows of the report's tables, as text."""
