"""The number of particles as a function of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras

from rws_keras.checks import check_integer, check_positive_integer
from rws_keras.errors import UserError


class ParticleSchedule(keras.callbacks.Callback):
    """Changes the number of particles K of the objective while the machine trains.

    More particles late in the training refine a machine that few particles have brought most
    of the way, at a fraction of the cost of many throughout. XLA compiles the step once for
    each K, which takes some seconds: prefer a few values to many.

    Args:
        schedule: A dict of epochs (counted from 0, as in Keras) to the K that holds from then
            on, the first of them 0; or a function of the epoch.

    Raises:
        UserError: If the schedule does not say what holds in the first epoch, or not a
            positive integer.

    Example:
    ```python
    growing = rws_keras.callbacks.ParticleSchedule({0: 2, 1: 5})
    machine.fit(x_train, epochs=2, callbacks=[growing], verbose=0)
    ```

    Reference:
        - [Bornschein & Bengio, 2015](https://arxiv.org/abs/1406.2751), who raise K late in
          training
    """

    def __init__(self, schedule: Mapping[int, int] | Callable[[int], int]):
        super().__init__()
        if not callable(schedule) and not isinstance(schedule, Mapping):
            raise UserError(
                f"A schedule is a dict of epochs to K, or a function, not {schedule!r}."
            )
        if not callable(schedule):
            schedule = {
                check_integer(epoch, "epoch", minimum=0): check_positive_integer(k, "K")
                for epoch, k in dict(schedule).items()
            }
            if 0 not in schedule:
                raise UserError("The schedule must say how many particles epoch 0 has.")
        self.schedule = schedule

    def num_particles(self, epoch: int) -> int:
        """K in an epoch, counted from 0."""
        if callable(self.schedule):
            return self.schedule(epoch)
        return self.schedule[max(start for start in self.schedule if start <= epoch)]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.model.objective.num_particles = self.num_particles(epoch)
