"""Pages on this machine: a run while it goes on, and its models to be asked."""
