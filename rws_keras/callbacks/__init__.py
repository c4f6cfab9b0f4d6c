"""Callbacks for `fit`."""

from rws_keras.callbacks.divergence import DivergenceError, StopOnDivergence
from rws_keras.callbacks.images import tile_images, write_png
from rws_keras.callbacks.schedule import ObjectiveSchedule, ParticleSchedule
from rws_keras.callbacks.tensorboard import TensorBoard, receptive_fields

__all__ = [
    "DivergenceError",
    "ObjectiveSchedule",
    "ParticleSchedule",
    "StopOnDivergence",
    "TensorBoard",
    "receptive_fields",
    "tile_images",
    "write_png",
]
