"""Callbacks for `fit`."""

from rws_keras.callbacks.cards import log_results
from rws_keras.callbacks.divergence import DivergenceError, StopOnDivergence
from rws_keras.callbacks.images import tile_images, write_png
from rws_keras.callbacks.receptive_fields import receptive_fields
from rws_keras.callbacks.schedule import ObjectiveSchedule, ParticleSchedule
from rws_keras.callbacks.tensorboard import TensorBoard

__all__ = [
    "DivergenceError",
    "ObjectiveSchedule",
    "ParticleSchedule",
    "StopOnDivergence",
    "TensorBoard",
    "log_results",
    "receptive_fields",
    "tile_images",
    "write_png",
]
