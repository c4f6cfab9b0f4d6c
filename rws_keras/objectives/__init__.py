"""Objectives: one a file. A new one subclasses `Objective` and is listed here."""

from rws_keras.objectives.objective import Draws, Objective, mean_over_data
from rws_keras.objectives.reweighted_wake_sleep import ReweightedWakeSleep, WakeSleep

OBJECTIVES = {"reweighted_wake_sleep": ReweightedWakeSleep, "wake_sleep": WakeSleep}

__all__ = ["OBJECTIVES", "Draws", "Objective", "ReweightedWakeSleep", "WakeSleep", "mean_over_data"]
