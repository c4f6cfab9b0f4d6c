"""The progress bar of `fit` and `evaluate`, with the most important metrics only."""

from __future__ import annotations

import keras

SHOWN = ("log_likelihood", "elbo", "ess", "val_log_likelihood")


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's progress bar, limited to `log_likelihood`, `elbo`, `ess`, `val_log_likelihood`.

    The history and all other callbacks still see every metric.
    """

    async_safe = True  # as Keras takes its own progress bar to be

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        super().on_train_batch_end(batch, _shown(logs))

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        super().on_test_batch_end(batch, _shown(logs))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, _shown(logs))

    def on_test_end(self, logs: dict | None = None) -> None:
        super().on_test_end(_shown(logs))


def with_progress_bar(arguments: dict) -> dict:
    """Keyword arguments of `fit` or `evaluate`, with the progress bar among the callbacks."""
    callbacks = arguments.get("callbacks")
    if arguments.get("verbose", "auto") == 0 or isinstance(callbacks, keras.callbacks.CallbackList):
        return arguments
    if callbacks is not None and not isinstance(callbacks, list | tuple):
        callbacks = [callbacks]
    callbacks = list(callbacks or [])
    if not any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in callbacks):
        callbacks.append(ProgressBar())
    return {**arguments, "callbacks": callbacks}


def _shown(logs):
    return {name: logs[name] for name in SHOWN if name in logs} if logs else logs
