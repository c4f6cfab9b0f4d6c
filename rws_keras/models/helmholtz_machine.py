"""The Helmholtz machine: a generative stack P and an inference stack Q."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from rws_keras import layers
from rws_keras.checks import check_positive_integer, plain_seed
from rws_keras.errors import UserError
from rws_keras.layers.noise import Seed
from rws_keras.layers.registry import Family
from rws_keras.layers.stack import check_layers
from rws_keras.models.architecture import check_stacks, name_layers, one_per_layer, with_options
from rws_keras.models.calibration import Calibration
from rws_keras.models.conditioning import Conditioning
from rws_keras.models.joint_model import check_missing
from rws_keras.models.saving import Saving
from rws_keras.models.trainer import Trainer


@keras.saving.register_keras_serializable(package="rws_keras")
class HelmholtzMachine(Saving, Conditioning, Trainer):
    """A deep directed model of data with binary or Gaussian latents.

    The generative model is `p(x, h) = p(h_L) Π p(h_{l-1} | h_l)` with `h_0 = x`, the
    inference model `q(h | x) = Π q(h_l | h_{l-1})`. Layers without a name of their own are
    called `p_0 … p_L` and `q_1 … q_L`, after the units that they generate: 0 are the visible ones.

    Args:
        p_layers: Stochastic layers of P, bottom first: the first generates the visible units, the
            last is the prior of the top latents.
        q_layers: Stochastic layers of Q, bottom first, one for each latent layer.
        seed: Seeds the sampling in `fit`: an integer, an int32 tensor `[2]`, or `None` for a
            fresh seed. The initial weights come from
            their initializers, which `keras.utils.set_random_seed` seeds.
        name: Name of the model.
        missing: `"marginalize"` if values of the data may be missing (NaN): then all likelihoods
            are those of the observed values, and Q also receives which values are missing. By
            default NaN is an error.
        calibration: What `calibrate` returned, or its configuration.
        schema: The meaning of the visible units, as `datasets.Schema.get_config` returns it;
            `datasets.Schema.of(machine)` reads it.

    Example:
    ```python
    machine = rws_keras.HelmholtzMachine.from_sizes(visible=64, latents=[50, 20])
    machine.compile("adam", rws_keras.objectives.ReweightedWakeSleep(num_particles=5))
    machine.fit(x_train, batch_size=100, epochs=50, validation_data=x_validation)
    machine.evaluate(x_test, num_particles=1000, return_dict=True)
    machine.predict(x_test)                       # log-likelihood of each datum, nats
    ```

    References:
        - [Dayan et al., 1995](https://doi.org/10.1162/neco.1995.7.5.889)
        - [Bornschein & Bengio, 2015](https://arxiv.org/abs/1406.2751)
    """

    def __init__(
        self,
        p_layers: Sequence[layers.StochasticLayer],
        q_layers: Sequence[layers.StochasticLayer],
        seed: Seed = None,
        name: str | None = None,
        missing: str | None = None,
        calibration: Calibration | dict | None = None,
        schema: dict | None = None,
    ):
        p_layers, q_layers = check_layers(p_layers, "p_layers"), check_layers(q_layers, "q_layers")
        super().__init__(len(q_layers), seed, name)
        self.seed, self.missing = plain_seed(seed), check_missing(missing)
        if isinstance(calibration, dict):
            calibration = Calibration.from_config(calibration)
        self.calibration = calibration
        self.schema = schema
        self.p_layers, self.q_layers = p_layers, q_layers
        check_stacks(self.p, self.q)
        name_layers(self.p_layers, "p", first=0)
        name_layers(self.q_layers, "q", first=1)
        self.p.build()
        self.q.build(self.q_input_units)
        self._functions = self._make_functions()
        self.built = True

    @classmethod
    def from_sizes(
        cls,
        visible: int,
        latents: int | Sequence[int],
        p: Family | Sequence[Family] = "sbn",
        q: Family | Sequence[Family] = "sbn",
        prior: Family | None = None,
        seed: Seed = None,
        name: str | None = None,
        choices: Sequence[int] | None = None,
        missing: str | None = None,
        schema: dict | None = None,
    ) -> HelmholtzMachine:
        """Makes a machine from the sizes of its layers.

        Args:
            visible: The number of visible units.
            latents: The sizes of the latent layers, bottom first, or that of the only one.
            p: Family of the conditional P layers: `"sbn"`, `"dsbn"`, `"arsbn"`, `"nade"`,
                `"made"`, `"pixelcnn"`, `"gaussian"`, a dict with further arguments, a class or a
                layer (see `layers.get`), or a list with one of these for each layer, bottom first.
            q: Family of the Q layers, likewise.
            prior: Family of the prior; P's (of its top layer) by default.
            seed: Seeds the sampling in `fit`.
            name: Name of the model.
            choices: Sizes of groups of visible units; in a group of several units exactly one is
                on, see `layers.Choices` and `datasets.Schema.groups`.
            missing: `"marginalize"` if values of the data may be missing (NaN).
            schema: The meaning of the visible units, as `datasets.Schema.get_config` returns it.

        Returns:
            A built `HelmholtzMachine`.

        Raises:
            UserError: If a size is not a positive integer or a family is unknown.

        Example:
        ```python
        rws_keras.HelmholtzMachine.from_sizes(784, [200, 200, 200])
        rws_keras.HelmholtzMachine.from_sizes(784, [250], p="nade", q="nade")
        rws_keras.HelmholtzMachine.from_sizes(784, [50], q="gaussian", prior="gaussian")   # a VAE
        ```
        """
        sizes = np.atleast_1d(np.asarray(latents, object)).tolist()
        if not sizes:
            raise UserError("`latents` must list at least one latent layer, got none.")
        visible = check_positive_integer(visible, "visible")
        latents = [check_positive_integer(size, "latents") for size in sizes]
        p, q = (one_per_layer(spec, len(latents), name) for spec, name in [(p, "p"), (q, "q")])
        p = [*p, p[-1] if prior is None else prior]
        if choices is not None:
            p[0] = with_options(p[0], choices=list(choices))
        return cls(
            [
                layers.get(family, size, f"p_{level}")
                for level, (family, size) in enumerate(zip(p, [visible, *latents], strict=True))
            ],
            [
                layers.get(family, size, f"q_{level}")
                for level, (family, size) in enumerate(zip(q, latents, strict=True), start=1)
            ],
            seed=seed,
            name=name,
            missing=missing,
            schema=schema,
        )
