"""One file per format that a student can be exported to."""

from limbeck.exporters._base import Exporter

__all__ = ["Exporter"]
