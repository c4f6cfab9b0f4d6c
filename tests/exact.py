"""The independent referee: tiny machines, enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import tensorflow as tf

from rws_keras import HelmholtzMachine

FAMILIES = ("sbn", "dsbn", "arsbn", "nade")
# For tests of what a family does, not of what is done with any; the others take longer.
EVERY_FAMILY = (*FAMILIES, "made")


def all_vectors(units: int) -> np.ndarray:
    """All binary vectors of a length, float32 `[2^units, units]`."""
    return np.array(list(itertools.product([0, 1], repeat=units)), np.float32)


def all_latents(machine: HelmholtzMachine) -> list[tf.Tensor]:
    """All joint states of the latents: one tensor `[S, 1, units]` a layer."""
    states = list(itertools.product(*(all_vectors(units) for units in machine.latent_units)))
    return [
        tf.constant(np.stack([state[layer] for state in states])[:, None])
        for layer in range(len(machine.latent_units))
    ]


def exact_log_joint(machine: HelmholtzMachine, x: np.ndarray) -> np.ndarray:
    """`log p(x, h)` for all latent states, float64 `[S, N]`."""
    log_p = machine.log_p(tf.constant(x), all_latents(machine))
    return sum(np.asarray(term, np.float64) + np.zeros([1, len(x)]) for term in log_p)


def exact_log_likelihood(machine: HelmholtzMachine, x: np.ndarray) -> np.ndarray:
    """`log p(x)`, float64 `[N]`."""
    return np.logaddexp.reduce(exact_log_joint(machine, x), axis=0)


def exact_posterior(machine: HelmholtzMachine, x: np.ndarray) -> np.ndarray:
    """`p(h | x)` for all latent states, float64 `[S, N]`."""
    joint = exact_log_joint(machine, x)
    return np.exp(joint - np.logaddexp.reduce(joint, axis=0))


def randomize(machine: HelmholtzMachine, seed: int, scale: float = 1.0) -> HelmholtzMachine:
    """Draws all weights and biases anew, large enough that the units depend on each other."""
    random = np.random.default_rng(seed)
    for variable in machine.trainable_variables:
        variable.assign(random.normal(0.0, scale, variable.shape))
    return machine


def tiny_machine(
    p: str, q: str, prior: str | None = None, seed: int = 0, scale: float = 1.0
) -> HelmholtzMachine:
    """A randomised machine of four visible units and latents 3-2."""
    machine = HelmholtzMachine.from_sizes(4, [3, 2], p=p, q=q, prior=prior, seed=seed)
    return randomize(machine, seed, scale)


def machine_with_one_gaussian_latent() -> HelmholtzMachine:
    """A randomised machine of four binary units and one latent, for quadrature."""
    machine = HelmholtzMachine.from_sizes(4, [1], q="gaussian", prior="gaussian", seed=0)
    randomize(machine, seed=3, scale=0.7)
    # A prior that Q covers, lest the weights have no finite variance.
    machine.p_layers[1].scale_bias.assign([-0.3])
    machine.q_layers[0].scale_bias.assign([1.0])
    return machine
