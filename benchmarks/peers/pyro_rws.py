"""The same machine under Pyro's own `ReweightedWakeSleep`."""

from __future__ import annotations

import pyro
from pyro.distributions import Bernoulli
from pyro.infer import SVI, ReweightedWakeSleep

from benchmarks.peers.pytorch import Machine


class Pyro:
    """The peer: one `SVI.step`, with the wake updates of P and Q.

    Pyro's sleep update is left out (`insomnia=1`), so that this peer does less than the others.
    Pyro forms one importance weight for the whole batch where the algorithm has one a datum:
    the work is the same, the gradient only for a batch of one.

    Args:
        sizes: Units of the layers, visible first.
        num_particles: K.
        rate: Learning rate of Adam.
    """

    def __init__(self, sizes, num_particles, rate=2e-3):
        pyro.clear_param_store()
        pyro.enable_validation(False)
        self.machine = Machine(sizes)
        self.objective = ReweightedWakeSleep(
            num_particles, insomnia=1.0, vectorize_particles=True, max_plate_nesting=1
        )
        self._svi = SVI(
            self._model, self._guide, pyro.optim.Adam({"lr": rate}), loss=self.objective
        )

    def _model(self, x):
        machine = pyro.module("machine", self.machine)
        with pyro.plate("data", len(x)):
            logits = machine.prior.expand(len(x), -1)
            for index in reversed(range(len(machine.p))):
                h = pyro.sample(f"h{index}", Bernoulli(logits=logits).to_event(1))
                logits = machine.p[index](h)
            pyro.sample("x", Bernoulli(logits=logits).to_event(1), obs=x)

    def _guide(self, x):
        machine = pyro.module("machine", self.machine)
        below = x
        with pyro.plate("data", len(x)):
            for index, layer in enumerate(machine.q):
                below = pyro.sample(f"h{index}", Bernoulli(logits=layer(below)).to_event(1))

    def load(self, weights):
        """Takes over the weights."""
        self.machine.load(weights)

    def gradients(self, x):
        """One draw of the gradients; Pyro sums over the data."""
        self.machine.zero_grad()
        self.objective.loss_and_grads(self._model, self._guide, x)
        return {name: value / len(x) for name, value in self.machine.gradients().items()}

    def step(self, x):
        """One update."""
        self._svi.step(x)
