"""Exact bias and variance of the estimates of RWS for every number of particles.

The machine is small enough to enumerate: its configurations c of the latents have the importance
weight v_c = p(x, h_c) / (q(h_c | x) p(x)) and the probability q_c. The moments of an estimate from
K particles are sums over K-tuples of configurations. They need not be summed: with the Laplace
transform of one weight, φ(t) = Σ_c q_c exp(-t v_c), that of S = Σ_k v_k is φ(t)^K, and

- log S: for E exponential and independent of S, P(E / S > t) = φ(t)^K, so that the moments of
  log E - log S, and with them those of log S, are integrals over one survival function;
- Σ_k ω̃_k g_k = Σ_k v_k g_k / S: 1 / S = ∫ exp(-t S) dt and 1 / S² = ∫ t exp(-t S) dt.

Over log t the integrands are smooth and vanish at both ends, where the trapezoidal rule converges
exponentially fast.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from rws_keras import HelmholtzMachine
from rws_keras.models.particles import sum_over_layers
from rws_keras.objectives import ReweightedWakeSleep

_PARTICLES = (1, 2, 3, 5, 7, 10, 20, 50, 100, 200, 500, 1000)
_LATENTS = (4, 3)
_VISIBLE = 6
# Updates of Q alone after which the estimates are looked at.
_UPDATES = (0, 50, 2000)


def log_likelihood_moments(v: np.ndarray, q: np.ndarray, num_particles: int) -> tuple[float, float]:
    """Exact bias and variance of `log p̂(x)` in nats from K particles.

    Args:
        v: Weights of the configurations over p(x): their mean under q is 1.
        q: Probabilities of the configurations.
        num_particles: K.
    """
    u, log_phi = _transform(v, q, num_particles)
    # Survival functions of log E - log(S / K): of S, and of a constant S = K, whose are known.
    difference = np.exp(num_particles * log_phi) - np.exp(-np.exp(u))
    step = u[1] - u[0]
    first, second = difference.sum() * step, 2.0 * (u * difference).sum() * step
    return -first, second + 2.0 * np.euler_gamma * first - first**2


def gradient_moments(
    v: np.ndarray, q: np.ndarray, g: np.ndarray, num_particles: int
) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean and variance of `Σ_k ω̃_k g_k` from K particles.

    Args:
        v: Weights of the configurations over p(x).
        q: Probabilities of the configurations.
        g: Gradients `[configurations, parameters]` at the configurations.
        num_particles: K.

    Returns:
        Mean and variance `[parameters]`.
    """
    k = num_particles
    u, log_phi = _transform(v, q, k)
    t = np.exp(u) / k
    dt = t * (u[1] - u[0])
    tilted = np.exp(-np.outer(t, v))
    mean = k * (dt * _power(log_phi, k - 1)) @ (tilted @ ((q * v)[:, None] * g))
    square = k * (dt * t * _power(log_phi, k - 1)) @ (tilted @ ((q * v**2)[:, None] * g**2))
    if k > 1:
        pairs = np.square(tilted @ ((q * v)[:, None] * g))
        square += k * (k - 1) * (dt * t * _power(log_phi, k - 2)) @ pairs
    return mean, square - mean**2


def _power(log_phi, exponent):
    """φ to a power; φ^0 is 1 also where φ is 0."""
    return np.exp(exponent * log_phi) if exponent else np.ones_like(log_phi)


def _transform(v, q, num_particles, points=8001):
    """Points u = log(t K), and log φ there."""
    # Below, 1 - φ(t)^K is t K; above, exp(-t v) of the smallest weight has vanished.
    u = np.linspace(-40.0, max(np.log(num_particles) - np.log(v[v > 0].min()), 0.0) + 5.0, points)
    t = np.exp(u) / num_particles
    with np.errstate(divide="ignore"):
        # log φ = log(1 - (1 - φ)), exact where φ is close to 1.
        return u, np.log1p(np.maximum(np.expm1(-np.outer(t, v)) @ q, -1.0))


def configurations(machine: HelmholtzMachine, x: np.ndarray) -> dict[str, np.ndarray]:
    """Weights, probabilities and gradients of a machine's configurations at one datum.

    Args:
        machine: A machine of few binary latents.
        x: One binary datum `[visible]`.

    Returns:
        `v` and `q` `[configurations]`, and the gradients of `log p(x, h)` and of `log q(h | x)`,
        `p` and `q_gradients`, `[configurations, parameters]`; `log_likelihood`, a scalar array.
    """
    total = sum(machine.latent_units)
    bits = np.array(list(np.ndindex(*[2] * total)), np.float32)
    latents = [
        tf.constant(part) for part in np.split(bits, np.cumsum(machine.latent_units)[:-1], axis=1)
    ]
    rows = tf.constant(np.tile(np.float32(x), (len(bits), 1)))
    found = {}
    log_probs = {}
    for name, layers, log_prob in (
        ("p", machine.p_layers, lambda: machine.log_p(rows, latents)),
        ("q", machine.q_layers, lambda: machine.log_q(rows, latents)),
    ):
        variables = [weight.value for layer in layers for weight in layer.trainable_variables]
        with tf.GradientTape() as tape:
            log_probs[name] = sum_over_layers(log_prob())
        jacobians = tape.jacobian(log_probs[name], variables)
        flat = [np.reshape(each, (len(bits), -1)) for each in jacobians]
        found[f"{name}_gradients"] = np.concatenate(flat, axis=1).astype(np.float64)
    log_p, log_q = (log_probs[name].numpy().astype(np.float64) for name in ("p", "q"))
    found["log_likelihood"] = np.logaddexp.reduce(log_p)
    q = np.exp(log_q)
    found["q"] = q / q.sum()
    found["v"] = np.exp(log_p - found["log_likelihood"]) / found["q"]
    return found


def limits(found: dict[str, np.ndarray]) -> dict[str, float]:
    """What K times bias and variance tend to as K grows (the delta method).

    Args:
        found: What `configurations` returns.

    Returns:
        For each error of `moments` the limit of its size times K.

    Reference:
        - [Domke & Sheldon, 2018](https://arxiv.org/abs/1808.09034)
    """
    v, q = found["v"], found["q"]
    variance = float(q @ v**2 - 1.0)
    limit = {"bias": -variance / 2.0, "variance": variance}
    for stack in ("p", "q"):
        g = found[f"{stack}_gradients"]
        centred = g - (q * v) @ g
        limit[f"{stack}_gradient_bias"] = float(np.linalg.norm((q * v**2) @ centred))
        limit[f"{stack}_gradient_variance"] = float(((q * v**2) @ centred**2).sum())
    return limit


def moments(found: dict[str, np.ndarray]) -> list[dict[str, float]]:
    """Exact errors of the estimates at one datum, for each number of particles.

    The bias of a gradient is the norm of the difference from the exact gradient, its variance the
    sum over the parameters.

    Args:
        found: What `configurations` returns.
    """
    v, q = found["v"], found["q"]
    rows = []
    for num_particles in _PARTICLES:
        bias, variance = log_likelihood_moments(v, q, num_particles)
        row: dict[str, float] = {"num_particles": num_particles, "bias": bias, "variance": variance}
        for stack in ("p", "q"):
            g = found[f"{stack}_gradients"]
            exact = (q * v) @ g
            mean, spread = gradient_moments(v, q, g, num_particles)
            row[f"{stack}_gradient_bias"] = float(np.linalg.norm(mean - exact))
            row[f"{stack}_gradient_variance"] = float(spread.sum())
        rows.append(row)
    return rows


def measure(report) -> dict:
    """Errors of the estimates against K, for a Q that is trained further and further."""
    keras.utils.set_random_seed(0)
    machine = HelmholtzMachine.from_sizes(_VISIBLE, _LATENTS, seed=0)
    generator = np.random.default_rng(0)
    for layer in machine.p_layers:
        for weight in layer.trainable_variables:
            weight.assign(generator.normal(size=weight.shape))
    x = machine.sample(1000, seed=1).x.numpy()
    machine.compile(
        keras.optimizers.Adam(1e-2), ReweightedWakeSleep(num_particles=50, wake_p=False)
    )
    stages, done = [], 0
    for updates in _UPDATES:
        report(f"Q after {updates} updates")
        if updates > done:
            steps = (updates - done) // 10
            machine.fit(x, batch_size=100, epochs=steps, verbose=0)
            done = updates
        found = configurations(machine, x[0])
        stages.append(
            {
                "updates_of_q": updates,
                "weight_variance": float(found["q"] @ found["v"] ** 2 - 1.0),
                "limits": limits(found),
                "rows": moments(found),
            }
        )
    return {"machine": f"SBN {_VISIBLE}-{_LATENTS[0]}-{_LATENTS[1]}", "stages": stages}
