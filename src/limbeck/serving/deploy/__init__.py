"""One file per place that a student can be deployed to: the files which that place wants."""

from limbeck.serving.deploy._base import Deployment, Written

__all__ = ["Deployment", "Written"]
