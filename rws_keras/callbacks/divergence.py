"""Stopping training that has diverged."""

from __future__ import annotations

import math

import keras

from rws_keras.errors import UserError


class DivergenceError(UserError):
    """Training has diverged: a metric is no longer a finite number.

    Attributes:
        metric: Name of the metric, as in the logs of `fit`.
        value: Its value: NaN or an infinity.
        epoch: The epoch, counted from 1.
        step: The step of that epoch, counted from 1.
    """

    def __init__(self, metric: str, value: float, epoch: int, step: int):
        what = (
            "Training diverged"
            if math.isnan(value)
            else "Training diverged, or a datum has probability zero"
        )
        super().__init__(
            f"{what}: `{metric}` is {value} at step {step} of epoch {epoch}. Try a "
            "smaller learning rate (a tenth of it, say), gradient clipping (`global_clipnorm` of "
            "the optimizer, for instance 1.0), or a smaller scale of the objective's updates."
        )
        self.metric, self.value, self.epoch, self.step = metric, value, epoch, step

    def __reduce__(self):
        return type(self), (self.metric, self.value, self.epoch, self.step)


class StopOnDivergence(keras.callbacks.Callback):
    """Raises a `DivergenceError` at the first step where a metric is not finite.

    Every metric in the logs is checked, those of the validation at the end of the epoch. Put it
    before callbacks that save the machine, so that they never save one that has diverged.

    The metrics are means over the epoch so far, in which a NaN stays; the callback checks the
    numbers that Keras has read from the device anyway, so that steps do not become slower.

    Raises:
        DivergenceError: It names the metric, the epoch and the step. (It is a `ValueError`.)

    Example:
    ```python
    machine.fit(x, epochs=50, callbacks=[rws_keras.callbacks.StopOnDivergence()])
    ```
    """

    # Keras may call `on_train_batch_end` in another thread while the next step runs. The error is
    # raised in the main thread, by the hooks that Keras calls there.
    async_safe = True

    def __init__(self):
        super().__init__()
        self._found: list[DivergenceError] = []

    def on_train_begin(self, logs=None):
        self._found.clear()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._step = epoch + 1, 0

    def on_train_batch_begin(self, batch, logs=None):
        self._raise()

    def on_train_batch_end(self, batch, logs=None):
        self._step = max(self._step, batch + 1)
        self._check(logs, batch + 1)

    def on_test_begin(self, logs=None):
        self._raise()  # before the validation, which would be in vain

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs, self._step)
        self._raise()

    def _check(self, logs, step):
        bad = {
            name: value
            for name, value in (logs or {}).items()
            if isinstance(value, float) and not math.isfinite(value)
        }
        if bad:
            # If everything is NaN, the loss says most.
            name = next((name for name in ("loss", "val_loss") if name in bad), next(iter(bad)))
            self._found.append(DivergenceError(name, bad[name], self._epoch, step))

    def _raise(self):
        if self._found:
            raise min(self._found, key=lambda error: error.step)
