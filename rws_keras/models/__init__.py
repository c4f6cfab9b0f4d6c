"""Models: the Helmholtz machine and what it returns."""

from rws_keras.models.calibration import Calibration
from rws_keras.models.helmholtz_machine import HelmholtzMachine
from rws_keras.models.imputation import Conditional, Imputation
from rws_keras.models.particles import LikelihoodEstimate, Particles, Samples, Statistics
from rws_keras.models.pretrained import PresetError, presets
from rws_keras.models.scorer import Scorer

__all__ = [
    "Calibration",
    "Conditional",
    "HelmholtzMachine",
    "Imputation",
    "LikelihoodEstimate",
    "Particles",
    "PresetError",
    "Samples",
    "Scorer",
    "Statistics",
    "presets",
]
