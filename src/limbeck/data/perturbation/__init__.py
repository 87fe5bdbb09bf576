"""Perturbations: samples changed so that their answer stays, or is worked out anew; one part a file.

Augmentation, curricula and evaluation all use these. Every changed sample bears its tag.
"""

from __future__ import annotations

from limbeck.data.perturbation._base import (
    ORIGIN,
    TAG,
    AskedPerturbation,
    Graded,
    Perturbation,
    Perturbed,
    Refused,
    asking,
    perturb_all,
    question_of,
)

__all__ = [
    "ORIGIN",
    "TAG",
    "AskedPerturbation",
    "Graded",
    "Perturbation",
    "Perturbed",
    "Refused",
    "asking",
    "perturb_all",
    "question_of",
]
