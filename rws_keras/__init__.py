"""Helmholtz machines trained with Reweighted Wake-Sleep, on Keras and TFP."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from rws_keras import callbacks, datasets, layers, objectives
from rws_keras.models import (
    HelmholtzMachine,
    LikelihoodEstimate,
    Particles,
    PresetError,
    Samples,
    presets,
)

__version__ = "0.1.0"

__all__ = [
    "HelmholtzMachine",
    "LikelihoodEstimate",
    "Particles",
    "PresetError",
    "Samples",
    "callbacks",
    "datasets",
    "layers",
    "objectives",
    "presets",
]
