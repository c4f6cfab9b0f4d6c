"""Reweighted Wake-Sleep for sigmoid belief networks in plain PyTorch.

Written as well as a user of PyTorch would write it: each layer's logits are computed once and
serve for the sample and for the gradient, the first Q layer once a datum, and Adam is fused.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn.functional import softplus


class SBN(nn.Linear):
    """Independent Bernoulli units given their parents."""

    def sample_and_log_prob(self, parents, *sample_shape):
        """A sample that carries no gradient, and its log-probability, which does."""
        logits = self(parents)
        shape = (*sample_shape, *logits.shape)
        value = (torch.rand(shape) < torch.sigmoid(logits.detach())).float()
        return value, log_prob(value, logits)


def log_prob(value, logits):
    """`Σ log p(value)` of Bernoulli units."""
    return -softplus((1.0 - 2.0 * value) * logits).sum(-1)


class Machine(nn.Module):
    """A stack P and a stack Q, bottom first."""

    def __init__(self, sizes):
        super().__init__()
        pairs = list(itertools.pairwise(sizes))
        self.p = nn.ModuleList(SBN(above, below) for below, above in pairs)
        self.prior = nn.Parameter(torch.zeros(sizes[-1]))
        self.q = nn.ModuleList(SBN(below, above) for below, above in pairs)

    def load(self, weights):
        """Copies arrays `{p,q}{layer}.{kernel,bias}` and `prior.bias`."""
        with torch.no_grad():
            for name, stack in (("p", self.p), ("q", self.q)):
                for index, layer in enumerate(stack):
                    layer.weight.copy_(torch.as_tensor(weights[f"{name}{index}.kernel"].T))
                    layer.bias.copy_(torch.as_tensor(weights[f"{name}{index}.bias"]))
            self.prior.copy_(torch.as_tensor(weights["prior.bias"]))

    def weights(self):
        """The weights under the names of `load`."""
        return self._named(lambda parameter: parameter.detach())

    def gradients(self):
        """The gradients under the names of `load`."""
        return self._named(lambda parameter: parameter.grad)

    def _named(self, what):
        found = {"prior.bias": what(self.prior)}
        for name, stack in (("p", self.p), ("q", self.q)):
            for index, layer in enumerate(stack):
                found[f"{name}{index}.kernel"] = what(layer.weight).T
                found[f"{name}{index}.bias"] = what(layer.bias)
        return {key: value.numpy().copy() for key, value in found.items()}

    def loss(self, x, num_particles):
        """The scalar whose gradient is the three updates together."""
        latents, log_q, below, sample_shape = [], 0.0, x, (num_particles,)
        for layer in self.q:
            below, term = layer.sample_and_log_prob(below, *sample_shape)
            latents.append(below)
            log_q = log_q + term
            sample_shape = ()
        log_p = log_prob(latents[-1], self.prior)
        for layer, value, parents in zip(self.p, [x, *latents], latents, strict=False):
            log_p = log_p + log_prob(value, layer(parents))
        weights = torch.softmax((log_p - log_q).detach(), dim=0)
        wake = (weights * (log_p + log_q)).sum(0).mean()
        return -wake - self.sleep(len(x))

    def sleep(self, num_dreams):
        """`log q(h | x)` of dreams `(x, h) ~ p`, averaged."""
        with torch.no_grad():
            noise = torch.rand(num_dreams, len(self.prior))
            states = [(noise < torch.sigmoid(self.prior)).float()]
            for layer in reversed(self.p):
                logits = layer(states[-1])
                states.append((torch.rand(logits.shape) < torch.sigmoid(logits)).float())
        states = states[::-1]
        terms = [
            log_prob(value, layer(parents))
            for layer, value, parents in zip(self.q, states[1:], states[:-1], strict=True)
        ]
        return sum(terms).mean()


class PyTorch:
    """The peer: one training step, eager or compiled.

    Args:
        sizes: Units of the layers, visible first.
        num_particles: K.
        compiled: Whether to use `torch.compile`.
        optimizer: `"adam"`, or `"muon"`: PyTorch's own (which orthogonalises in bfloat16) with the
            settings of our recipe, and Adam for the biases.
        rate: Learning rate.
        decay_steps: Steps over which the rate falls to zero as a cosine; constant if `None`.
    """

    def __init__(
        self, sizes, num_particles, compiled, optimizer="adam", rate=2e-3, decay_steps=None
    ):
        self.machine = Machine(sizes)
        self.num_particles = num_particles
        self._optimizers = _optimizers(optimizer, list(self.machine.parameters()), rate)
        self._schedulers = [
            torch.optim.lr_scheduler.CosineAnnealingLR(each, decay_steps)
            for each in self._optimizers
            if decay_steps is not None
        ]
        loss = torch.compile(self.machine.loss) if compiled else self.machine.loss
        self._loss = loss

    def load(self, weights):
        """Takes over the weights."""
        self.machine.load(weights)

    def gradients(self, x):
        """One draw of the gradients."""
        self.machine.zero_grad()
        self._loss(x, self.num_particles).backward()
        return self.machine.gradients()

    def step(self, x):
        """One update."""
        self.machine.zero_grad()
        self._loss(x, self.num_particles).backward()
        for each in (*self._optimizers, *self._schedulers):
            each.step()


def _optimizers(name, parameters, rate):
    if name == "adam":
        return [torch.optim.Adam(parameters, rate, fused=True)]
    matrices = [parameter for parameter in parameters if parameter.ndim == 2]
    others = [parameter for parameter in parameters if parameter.ndim != 2]
    muon = torch.optim.Muon(
        matrices, rate, weight_decay=0.0, ns_steps=2, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.Adam(others, rate, fused=True)]
