"""What `limbeck watch` says of its own; the same keys in each language."""
