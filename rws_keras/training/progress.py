"""A progress bar for a whole run."""

from __future__ import annotations

import time

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar(keras.callbacks.Callback):
    """One bar over all epochs, with the time that remains and the validation likelihood.

    Where the output is not a terminal, a line an epoch takes the bar's place.

    Args:
        console: Rich console.
        title: What is trained.
        epochs: Epochs of the whole run.
        first_epoch: Epochs done before.
    """

    def __init__(self, console: Console, title: str, epochs: int, first_epoch: int = 0):
        super().__init__()
        self.console, self.title = console, title
        self.epochs, self.first_epoch = epochs, first_epoch
        self.bar = None

    def on_train_begin(self, logs=None):
        self._began = time.perf_counter()
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("epochs, left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[likelihood]}"),
                console=self.console,
                # Epochs can take minutes: estimate from more than the last half minute.
                speed_estimate_period=3600,
            )
            self.task = self.bar.add_task(
                self.title, total=self.epochs, completed=self.first_epoch, likelihood=""
            )
            self.bar.start()

    def on_train_batch_end(self, batch, logs=None):
        if self.bar and self.params.get("steps"):
            done = self._epoch + (batch + 1) / self.params["steps"]
            self.bar.update(self.task, completed=done)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        likelihood = f"validation {logs['val_log_likelihood']:.2f} nats"
        if self.bar:
            self.bar.update(self.task, completed=epoch + 1, likelihood=likelihood)
            return
        done = epoch + 1 - self.first_epoch
        left = (time.perf_counter() - self._began) / done * (self.epochs - epoch - 1)
        self.console.print(
            f"{self.title}: epoch {epoch + 1}/{self.epochs}, train "
            f"{logs['log_likelihood']:.2f}, {likelihood}, {left:.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Takes the bar down, also when the training was interrupted."""
        if self.bar:
            self.bar.stop()
