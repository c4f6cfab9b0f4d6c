"""Objectives, one per file. A new one subclasses `Objective` and is listed here."""

from rws_keras.objectives.dreg import DReG
from rws_keras.objectives.elbo import ELBO
from rws_keras.objectives.iwae import IWAE
from rws_keras.objectives.nvil import NVIL
from rws_keras.objectives.objective import Draws, Objective, mean_over_data, sum_over_particles
from rws_keras.objectives.reinforce import REINFORCE
from rws_keras.objectives.reweighted_wake_sleep import ReweightedWakeSleep, WakeSleep
from rws_keras.objectives.vimco import VIMCO

OBJECTIVES = {
    "reweighted_wake_sleep": ReweightedWakeSleep,
    "wake_sleep": WakeSleep,
    "reinforce": REINFORCE,
    "nvil": NVIL,
    "vimco": VIMCO,
    "elbo": ELBO,
    "iwae": IWAE,
    "dreg": DReG,
}

__all__ = [
    "ELBO",
    "IWAE",
    "NVIL",
    "OBJECTIVES",
    "REINFORCE",
    "VIMCO",
    "DReG",
    "Draws",
    "Objective",
    "ReweightedWakeSleep",
    "WakeSleep",
    "mean_over_data",
    "sum_over_particles",
]
