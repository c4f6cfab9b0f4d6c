"""How far the step is from what the processor's matrix products allow, and what the rest is."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.machines import REFERENCE, SBN3, VISIBLE, Case, bare_step, data, flops, make
from rws_keras.training.timing import alternate, ratio, summary, timer


def measure(report) -> dict:
    """For few and for many particles: the step, its parts, and its matrix products alone."""
    cases = []
    for case in (REFERENCE, Case("sbn", SBN3, 50)):
        report(case.name)
        cases.append(_parts(case))
    return {"cases": cases}


def _parts(case: Case) -> dict:
    """The parts of a step, timed in turn.

    What activations cost beside the products is estimated by the least that a step must do with
    them: to read each once and write one result, in one pass that XLA compiles.
    """
    machine = make(case)
    x = tf.constant(data(case.batch_size), tf.float32)
    seed = tf.constant([0, 1])
    draw = tf.function(lambda: machine.objective.noise(machine, case.batch_size, seed))
    noise = draw()
    differentiate = tf.function(
        lambda: machine.objective.gradients(machine, x, noise)[0], jit_compile=True
    )
    learn = tf.function(lambda: machine._learn(x, noise, None, None), jit_compile=True)
    empty = tf.function(lambda: tf.zeros([]))
    products = flops(case)
    times = alternate(
        {
            "step": timer(bare_step(machine, case.batch_size)),
            "random numbers": timer(draw),
            "gradients": timer(differentiate),
            "gradients and optimizer": timer(learn),
            "matrix products": timer(_matrix_products(products)),
            "one pass": timer(_one_pass(case)),
            "empty call": timer(empty),
        },
        rounds=15,
        steps=20 if case.num_particles < 50 else 5,
    )
    work = sum(2 * m * k * n for m, k, n, _ in products)
    step, alone = np.median(times["step"]), np.median(times["matrix products"])
    parts = {
        "matrix products": alone,
        "random numbers": np.median(times["random numbers"] - times["empty call"]),
        "optimizer": np.median(times["gradients and optimizer"] - times["gradients"]),
        "Python and dispatch": np.median(times["empty call"]),
    }
    parts["element-wise work and the rest"] = step - sum(parts.values())
    return {
        "case": case.name,
        "step": summary(times["step"]),
        "matrix_products": summary(times["matrix products"]),
        "gflop": work / 1e9,
        "gflops_of_step": work / step / 1e9,
        "gflops_of_matrix_products": work / alone / 1e9,
        "share_of_matrix_product_rate": ratio(times["matrix products"], times["step"]),
        "ms": {name: float(value * 1e3) for name, value in parts.items()},
        "ms_of_one_pass": float((np.median(times["one pass"] - times["empty call"])) * 1e3),
    }


def _one_pass(case):
    """A sigmoid of all activations of a step, and nothing else."""
    # A row is a particle or a dream: units of P, and the latents again in Q.
    rows = (case.num_particles + 1) * case.batch_size
    activations = tf.random.normal([rows, VISIBLE + 2 * sum(case.latents)])
    return tf.function(lambda: tf.sigmoid(activations), jit_compile=True)


def _matrix_products(products):
    """All matrix products of a step and nothing else, by TensorFlow's own kernel."""
    operands = []
    for m, k, n, transposed in products:
        left = tf.random.normal([k, m] if transposed else [m, k])
        operands.append((left, tf.random.normal([k, n]), transposed))

    @tf.function
    def call():
        return [tf.matmul(a, b, transpose_a=transposed) for a, b, transposed in operands]

    return call
