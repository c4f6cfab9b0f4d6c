"""Ctrl-C while a run trains."""

from __future__ import annotations

import signal
import threading

import keras


class Interruption(keras.callbacks.Callback):
    """Stops the training on Ctrl-C, also where Keras would swallow it.

    Keras drops every exception, `KeyboardInterrupt` among them, while it waits for the
    results of a step to turn them into numbers. So the signal is noted too, and raised again
    at the end of the batch. As a context manager it listens for the signal.
    """

    def __init__(self):
        super().__init__()
        self._came = False

    def __enter__(self):
        # A process in the background may have been told to ignore the signal, and only the
        # main thread may choose who gets it.
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._listens = usual and threading.current_thread() is threading.main_thread()
        if self._listens:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_):
        if self._listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number, frame):
        self._came = True
        raise KeyboardInterrupt

    def _raise(self, *_, **__):
        if self._came:
            raise KeyboardInterrupt

    on_train_batch_end = on_test_batch_end = on_epoch_begin = _raise
