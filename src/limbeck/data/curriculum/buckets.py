"""One level of difficulty after the other."""

from __future__ import annotations

from limbeck.core.parts import part
from limbeck.data.curriculum._base import Bucketed


@part
class Buckets(Bucketed):
    """Draw from one bucket at a time, the easiest first; what is past does not come back.

    Reference:
        Bengio et al., Curriculum Learning, ICML 2009.
    """

    def span(self, progress: float) -> tuple[float, float]:
        place = self.bucket(progress)
        return place / self.buckets, (place + 1) / self.buckets
