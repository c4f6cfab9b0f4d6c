"""Ctrl-C while a run trains or is evaluated."""

from __future__ import annotations

import os
import signal
import sys
import threading

import keras
from rich.console import Console


class Interruption(keras.callbacks.Callback):
    """Stops the training on Ctrl-C, says so at once, and quits on the second Ctrl-C.

    Python handles a signal in its main thread, once that returns from what TensorFlow does there:
    a compilation takes 20 seconds, a batch of an evaluation minutes. So a thread of its own
    watches for the signal: it prints the answer to the first Ctrl-C, and ends the process at the
    second. Files are renamed into place when they are complete; quitting loses what has not been
    written yet, and leaves nothing half-written.

    Keras drops every exception, `KeyboardInterrupt` among them, while it waits for the results of
    a step to turn them into numbers. So the signal is noted too, and raised again at the end of
    the batch. As a context manager it listens for the signal.

    Args:
        console: Where to answer; standard output by default.
        after: What is completed before the process stops.
    """

    def __init__(self, console: Console | None = None, after: str = "the current step"):
        super().__init__()
        self._console = console or Console()
        self._after = after
        self._came = False

    def __enter__(self):
        # A process in the background may have been told to ignore the signal, and only the
        # main thread may choose who gets it.
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._listens = usual and threading.current_thread() is threading.main_thread()
        if self._listens:
            # The interpreter writes the number of each signal here, the moment it comes.
            self._signals, self._written = os.pipe()
            os.set_blocking(self._written, False)
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
            self._others = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_):
        if self._listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(self._others)
            os.close(self._written)
            self._watcher.join()
            os.close(self._signals)

    def _watch(self):
        answered = False
        while number := os.read(self._signals, 1):
            if number[0] != signal.SIGINT:
                continue
            if answered:
                self._console.show_cursor()
                sys.stdout.flush()
                os._exit(130)
            self._console.print(
                f"\nStopping after {self._after}; Ctrl-C again quits at once.", soft_wrap=True
            )
            answered = True

    def _note(self, number, frame):
        self._came = True
        raise KeyboardInterrupt

    def _raise(self, *_, **__):
        if self._came:
            raise KeyboardInterrupt

    on_train_batch_end = on_test_batch_end = on_epoch_begin = _raise
