"""One file per task: rows to samples, samples to batches (the label shift lives here)."""

from limbeck.tasks._base import Codec, Encoded, Feature, Task, class_names

__all__ = ["Codec", "Encoded", "Feature", "Task", "class_names"]
