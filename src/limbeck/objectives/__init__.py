"""What a student learns from: one objective a file, and the pass that the distribution terms share.

Shapes: N rows (valid positions), V vocabulary or classes, S what student and teacher share.
"""

from limbeck.objectives._base import DistributionTerm, Objective
from limbeck.objectives._chunked import Chunk, distribution_loss

__all__ = ["Chunk", "DistributionTerm", "Objective", "distribution_loss"]
