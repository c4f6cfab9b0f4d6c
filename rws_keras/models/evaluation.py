"""The state of one evaluation, which belongs to one thread."""

from __future__ import annotations

import tensorflow as tf

from rws_keras.checks import check_positive_integer
from rws_keras.layers.noise import Seed
from rws_keras.models.step_seeds import sequence_seed


class Evaluating:
    """K, noise and metrics of one `evaluate` or `predict`, in the thread that calls it.

    Args:
        machine: The model.
        num_particles: K; the compiled one if `None`.
        seed: Seed of the first batch.
    """

    def __init__(self, machine, num_particles: int | None, seed: Seed):
        self.machine = machine
        self.state = {
            "num_particles": tf.constant(
                machine.num_particles
                if num_particles is None
                else check_positive_integer(num_particles, "num_particles")
            ),
            "seed": sequence_seed(seed),
        }
        self.distributed = machine._is_distributed()
        if not self.distributed:
            self.state["metrics"] = machine.statistics.fresh()

    def __enter__(self) -> None:
        if self.distributed:
            self.machine._evaluation_lock.acquire()
            self.machine._evaluation_particles.assign(self.state["num_particles"])
            self.machine._evaluation_seed.assign(self.state["seed"])
        thread = self.machine._thread
        # A callback may evaluate within an evaluation.
        self.outer = dict(vars(thread))
        vars(thread).update(self.state)

    def __exit__(self, *_: object) -> None:
        vars(self.machine._thread).clear()
        vars(self.machine._thread).update(self.outer)
        if self.distributed:
            self.machine._evaluation_lock.release()
