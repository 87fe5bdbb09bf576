"""Baby steps."""

from __future__ import annotations

from limbeck.core.parts import part
from limbeck.data.curriculum._base import Bucketed


@part
class ByStage(Bucketed):
    """Begin with the easiest bucket and add the next one, stage by stage; the last stage draws from all.

    Reference:
        Spitkovsky et al., From Baby Steps to Leapfrog: How "Less is More" in Unsupervised Dependency Parsing, NAACL
        2010.
    """

    def span(self, progress: float) -> tuple[float, float]:
        return 0.0, (self.bucket(progress) + 1) / self.buckets
