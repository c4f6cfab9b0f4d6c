"""Settings of the objective as functions of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from rws_keras.checks import check_integer, check_positive_integer
from rws_keras.errors import UserError
from rws_keras.suggestions import unknown

Schedule = Mapping[int, Any] | Callable[[int], Any]


class ObjectiveSchedule(keras.callbacks.Callback):
    """Changes settings of the objective while the machine trains.

    A scale of an update, such as `sleep_q`, may take another value in each epoch. Another number of
    particles, or an update that is switched on or off (0), needs a new step, which XLA takes some
    seconds to compile: prefer a few values to many.

    Args:
        **schedules: For each setting a dict of epochs (counted from 0, as in Keras) to the
            value that is used from then on, the first epoch being 0; or a function of the epoch.

    Raises:
        UserError: If a schedule has no value for the first epoch, or, when `fit` begins, if the
            objective has no such setting.

    Example:
    ```python
    annealed = rws_keras.callbacks.ObjectiveSchedule(sleep_q=lambda epoch: 0.5**epoch)
    machine.fit(x_train, epochs=2, callbacks=[annealed], verbose=0)
    ```
    """

    def __init__(self, **schedules: Schedule):
        super().__init__()
        if not schedules:
            raise UserError("Give at least one schedule, for instance sleep_q={0: 1.0, 10: 0.5}.")
        self.schedules = {
            name: _check_schedule(name, schedule) for name, schedule in schedules.items()
        }

    def value(self, name: str, epoch: int) -> Any:
        """The value of a setting in an epoch, counted from 0."""
        schedule = self.schedules[name]
        if callable(schedule):
            return schedule(epoch)
        return schedule[max(start for start in schedule if start <= epoch)]

    def on_train_begin(self, logs: dict | None = None) -> None:
        settings = self.model.objective.settings
        for name, schedule in self.schedules.items():
            if name not in settings:
                what = f"setting of {type(self.model.objective).__name__}"
                raise UserError(unknown(what, name, settings))
            if isinstance(schedule, Mapping):
                for value in schedule.values():
                    settings[name](value, name)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        for name in self.schedules:
            value = self.value(name, epoch)
            # Keras's schedules of learning rates return tensors.
            value = value.numpy().item() if tf.is_tensor(value) else value
            setattr(self.model.objective, name, value)


def _check_schedule(name, schedule):
    if callable(schedule):
        return schedule
    if not isinstance(schedule, Mapping):
        raise UserError(
            f"A schedule is a dict of epochs to values, or a function; got {schedule!r} for "
            f"`{name}`."
        )
    schedule = {check_integer(key, "epoch", minimum=0): value for key, value in schedule.items()}
    if 0 not in schedule:
        raise UserError(f"The schedule of `{name}` must have a value for epoch 0.")
    return schedule


class ParticleSchedule(ObjectiveSchedule):
    """Changes the number of particles K of the objective while the machine trains.

    More particles late in the training refine a machine that few particles have brought most
    of the way, at a fraction of the cost of many throughout. XLA compiles the step once for
    each K, which takes some seconds: prefer a few values to many.

    Args:
        schedule: A dict of epochs (counted from 0, as in Keras) to the K that is used from then on,
            the first epoch being 0; or a function of the epoch.

    Raises:
        UserError: If the schedule has no value for the first epoch, or a value is not a positive
            integer.

    Example:
    ```python
    growing = rws_keras.callbacks.ParticleSchedule({0: 2, 1: 5})
    machine.fit(x_train, epochs=2, callbacks=[growing], verbose=0)
    ```

    Reference:
        - [Bornschein & Bengio, 2015](https://arxiv.org/abs/1406.2751), who raise K late in
          training
    """

    def __init__(self, schedule: Schedule):
        super().__init__(num_particles=schedule)
        if isinstance(schedule, Mapping):
            for value in schedule.values():
                check_positive_integer(value, "K")
