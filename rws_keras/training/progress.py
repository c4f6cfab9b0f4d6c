"""Progress bars: of a whole run, and of an evaluation."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class Pace:
    """Estimates the time left, from what has been done in this session alone.

    Its clock starts at the first report: what came before it contains the compilation.

    Args:
        total: How much there is to do.
    """

    def __init__(self, total: float):
        self._total = total
        self._first: tuple[float, float] | None = None

    def left(self, done: float) -> float | None:
        """Seconds left when so much is done; `None` at the first report."""
        now = time.perf_counter()
        self._first = self._first or (now, done)
        began, done_then = self._first
        if done <= done_then:
            return None
        return (now - began) / (done - done_then) * (self._total - done)


class ProgressBar(keras.callbacks.Callback):
    """One bar over all epochs, with the time that remains and the validation likelihood.

    If the output is not a terminal, it prints one line per epoch instead.

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
        self.bar: Progress | None = None

    def on_train_begin(self, logs=None):
        self._pace = Pace(self.epochs)
        if self.console.is_terminal:
            self.bar = _bar(self.console, "epochs", TextColumn("{task.fields[likelihood]}"))
            self.task = self.bar.add_task(
                self.title, total=self.epochs, completed=self.first_epoch, left="", likelihood=""
            )
            self.bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if epoch == self.first_epoch + 1:
            # By now all is compiled, the validation and what the logs need too: measure again.
            self._pace = Pace(self.epochs)
            self._pace.left(epoch)

    def on_train_batch_end(self, batch, logs=None):
        if self.params.get("steps"):
            done = self._epoch + (batch + 1) / self.params["steps"]
            left = self._pace.left(done)
            if self.bar:
                self.bar.update(self.task, completed=done, left=_in_words(left))

    def on_epoch_end(self, epoch, logs=None):
        likelihood = f"validation {logs['val_log_likelihood']:.2f} nats"
        left = None if epoch == self.first_epoch else self._pace.left(epoch + 1)
        if self.bar:
            self.bar.update(
                self.task, completed=epoch + 1, left=_in_words(left), likelihood=likelihood
            )
            return
        time_left = "" if left is None else f", {left:.0f} s left"
        self.console.print(
            f"{self.title}: epoch {epoch + 1}/{self.epochs}, train "
            f"{logs['log_likelihood']:.2f}, {likelihood}{time_left}",
            highlight=False,
            soft_wrap=True,
        )

    def close(self) -> None:
        """Takes the bar down, also when the training was interrupted."""
        if self.bar:
            self.bar.stop()


@contextlib.contextmanager
def evaluation_bar(console: Console, title: str, batches: int) -> Iterator[Callable[[float], None]]:
    """A bar over the batches of an evaluation, where the output is a terminal.

    Args:
        console: Rich console.
        title: What is evaluated.
        batches: How many batches there are.

    Yields:
        A function to call with the number of batches that are done.
    """
    pace = Pace(batches)
    with _bar(console, "batches") as bar:
        task = bar.add_task(title, total=batches, left="")
        yield lambda done: bar.update(task, completed=done, left=_in_words(pace.left(done)))


def _bar(console: Console, unit: str, *columns: TextColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[left]}"),
        *columns,
        console=console,
        disable=not console.is_terminal,
    )


def _in_words(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.timedelta(seconds=round(seconds))} left"
