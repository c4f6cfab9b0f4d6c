"""Classical models of binary data with exact likelihoods, which a machine should beat."""

from rws_keras.baselines.chow_liu import ChowLiuTree
from rws_keras.baselines.independent_units import IndependentUnits

__all__ = ["ChowLiuTree", "IndependentUnits"]
