"""Consistency alignment: from mask-text similarities to logits, and the loss."""

from maskclippp.alignment.loss import Criterion, ReweightCELoss, build_criterion
from maskclippp.alignment.psm import PSM, DummyPSM, LinearPSM, PseudoTextPSM, build_psm

__all__ = [
    "PSM",
    "Criterion",
    "DummyPSM",
    "LinearPSM",
    "PseudoTextPSM",
    "ReweightCELoss",
    "build_criterion",
    "build_psm",
]
