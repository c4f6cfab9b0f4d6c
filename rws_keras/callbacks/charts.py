"""The charts of TensorBoard: where each is shown, and its description."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from rws_keras.callbacks.monitoring import CORRELATED_UNITS, NUM_WEIGHED, SPREAD_ROWS, TABLE_SAMPLES
from rws_keras.models.unit_activity import ACTIVE, STANDARD_ERRORS, Activity

# Groups are sorted by name and only the first ones are open: the likelihood's comes first.
LOG_LIKELIHOOD = "estimates/log_likelihood"
ELBO = "estimates/elbo"
ESS_SHARE = "estimates/effective_sample_size_share"
NUM_PARTICLES = "estimates/num_particles"
SPREAD = "particles/log_weight_spread"
IN_TRAINING = "log_likelihood/validation_in_training"

# What TensorBoard says under a chart (Markdown), by its tag; `#` stands for what differs: a layer,
# or a weight.
_DESCRIPTIONS = {
    ELBO: "Evidence lower bound `E_q[log p(x, h) - log q(h | x)]` in nats per datum. Its distance "
    "from the log-likelihood shows how far Q is from P's posterior.",
    NUM_PARTICLES: "K, the number of particles per datum.",
    SPREAD: f"Standard deviation of the log-weights `log p(x, h) - log q(h | x)` of a datum's "
    f"{NUM_WEIGHED} particles, mean over the first {SPREAD_ROWS} rows of the monitored data, in "
    "nats. 0 means that Q is P's posterior; above a few nats one particle has almost all the "
    "weight. Particles of probability zero are left out.",
    "particles/normalized_weights": "Importance weights `ω / Σ ω` of the objective's K particles "
    "on monitored data. All at 1 / K is best; a peak at 0 and a few values at 1 mean that one "
    "particle has all the weight.",
    "layers/kl_#": "`E_q[log q(h | below) - log p(h | above)]` of a latent layer in nats per "
    "datum, 1 is the lowest layer: how much information about the datum it carries. Near 0 it is "
    "not used.",
    "layers/entropy_#": "Entropy of Q in a latent layer, `-E_q[log q(h | below)]`, in nats per "
    "datum, 1 is the lowest layer: how uncertain Q is about these units. For binary units, 0 means "
    "that Q is certain. The entropy of Gaussian units is that of a density: 0 has no special "
    "meaning, and the more certain Q is, the lower it is.",
    "gradient_norm/#": "Norm of the gradient of a layer's weights on monitored data. `p_0` "
    "generates the visible units, `p_1` and `q_1` the lowest latents.",
    "training/learning_rate": "Learning rate after the epoch.",
    "weights/#": "The layer's weights and biases.",
    "objective/#": "Weights of the objective itself, such as a baseline.",
    "units/means_of_q_#": "Means of the units of a latent layer under Q over the monitored data. "
    "Binary units whose means are near 0 or 1 hardly ever change; means of Gaussian units may be "
    "any number.",
    "units/prior_gap": "Mean distance between the units' means under Q, over the monitored data, "
    "and under P's prior, in the top layer. 0 where the means agree: for binary units, Q turns "
    "each on as often as P does.",
    "units/top_layer_of_q_beside_prior": "One column per unit of the top latent layer, sorted by "
    "its mean under P's prior, the orange line. Blue points are the means under Q over the "
    "monitored data: above the line the mean under Q is larger, so that Q turns a binary unit on "
    "more often than P does. The vertical axis goes from 0 to 1, or further if a mean is outside "
    "this range, as for Gaussian units.",
    "images/samples_from_p": "Samples from P: means of the visible units. The noise is the same in "
    "each epoch.",
    "images/data_and_reconstructions": "Monitored data, each with the visible means of one of its "
    "particles, drawn by weight, on its right.",
    "images/receptive_fields_#": "The effect of the units of a latent layer on the visible units, "
    "1 is the lowest layer: the strongest rows of `W_1`, of `W_2 W_1` for layer 2, and so on. Red "
    "makes pixels brighter, blue darker; the largest weight of each has the full colour. For NADE "
    "and MADE only the direct weights are shown: the path through its hidden layer is left out.",
    "table/marginals": "One column per column of the table, sorted by its mean in the data, the "
    f"orange line. Blue points are the means of {TABLE_SAMPLES:,} samples from P. The vertical "
    "axis goes from 0 to 1, or further if a mean is outside this range.",
    "table/correlations": "Correlations between columns, for the data on the left and for "
    f"{TABLE_SAMPLES:,} samples from P on the right: red 1, white 0, blue -1. For a wide table, "
    f"the {CORRELATED_UNITS} columns that vary most.",
    "table/marginal_error": "Root mean square, over the columns, of the difference between the "
    f"means of the data and of {TABLE_SAMPLES:,} samples from P.",
    "table/correlation_error": "Root mean square, over the pairs of columns, of the difference "
    f"between the correlations of the data and of {TABLE_SAMPLES:,} samples from P. The sampling "
    f"error alone is about {TABLE_SAMPLES**-0.5:.2f}. For a wide table, only the "
    f"{CORRELATED_UNITS} columns that vary most are used.",
    "table/columns": "The columns whose means differ most between the data and "
    f"{TABLE_SAMPLES:,} samples from P, and the pairs of columns whose correlations differ most.",
    IN_TRAINING: "Log-likelihood of the validation data after the last epoch, with the K used for "
    "validation during training.",
}


class Chart(NamedTuple):
    """One value of a chart.

    Attributes:
        tag: Where it is shown: the part before the slash is TensorBoard's group.
        value: The value.
        description: Its description in TensorBoard, Markdown.
    """

    tag: str
    value: float
    description: str


def describe(tag: str) -> str:
    """The description of a chart in TensorBoard.

    Raises:
        KeyError: If there is no chart with this tag.
    """
    names = (tag, re.sub(r"_\d+$", "_#", tag), f"{tag.partition('/')[0]}/#")
    return next(_DESCRIPTIONS[name] for name in names if name in _DESCRIPTIONS)


def write(*charts: Chart) -> None:
    """Writes scalars to the current writer."""
    for tag, value, description in charts:
        tf.summary.scalar(tag, value, description=description)


def scalar(tag: str, value: float | tf.Tensor) -> None:
    """Writes a scalar with its description to the current writer."""
    write(Chart(tag, value, describe(tag)))


def histogram(tag: str, values: np.ndarray | tf.Tensor) -> None:
    """Writes a histogram with its description to the current writer.

    NumPy counts several times as fast as TensorFlow does. What is not finite is left out.
    """
    from tensorboard.plugins.histogram import summary_v2

    values = np.asarray(values)
    summary = summary_v2.histogram_pb(tag, values[np.isfinite(values)], description=describe(tag))
    step = tf.summary.experimental.get_step()
    tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)


def image(tag: str, pixels: np.ndarray) -> None:
    """Writes an image `[height, width, channels]` with its description to the current writer."""
    tf.summary.image(tag, pixels[None], description=describe(tag))


def text(tag: str, markdown: str) -> None:
    """Writes a card of the Text tab to the writer that is open."""
    tf.summary.text(tag, markdown, description=describe(tag))


def epoch_charts(values: Mapping[str, float], num_particles: str) -> Iterator[Chart]:
    """The charts of one split's metrics of an epoch.

    Args:
        values: Metrics by the names that `fit` reports, without `val_`.
        num_particles: The numbers of particles of both splits, in words.
    """
    for name, value in values.items():
        if name == "log_likelihood":
            yield Chart(
                LOG_LIKELIHOOD,
                value,
                f"Estimate of `log p(x)` in nats per datum, higher is better: {num_particles}. It "
                "is too low on average, and less so for larger K.",
            )
        elif name.startswith(("kl_", "entropy_")):
            tag = f"layers/{name}"
            yield Chart(tag, value, describe(tag))
        elif name in ("elbo", "num_particles"):
            tag = f"estimates/{name}"
            yield Chart(tag, value, describe(tag))
    if "ess" in values and values.get("num_particles"):
        yield Chart(
            ESS_SHARE,
            values["ess"] / values["num_particles"],
            "Effective sample size `(Σ ω)² / Σ ω²` of a datum's importance weights as a share of "
            f"their number K, mean over the data: {num_particles}. 1 means that all particles have "
            "the same weight, as they do if Q is P's posterior; 1 / K, that one has all the "
            "weight. The share falls with K: compare epochs rather than splits of different K.",
        )


def unit_charts(layer: int, activity: Activity) -> Iterator[Chart]:
    """How many units of a latent layer are active and dead.

    Args:
        layer: The layer's number, 1 is the lowest.
        activity: Activity of its units.
    """
    units, active = len(activity.values), int(activity.is_active.sum())
    yield Chart(
        f"units/active_{layer}",
        active,
        f"Active units among the {units} units of latent layer {layer} (1 is the lowest): the "
        f"variance of `E_q[h | x]` over the monitored data is above {ACTIVE} and above "
        f"{STANDARD_ERRORS:g} standard errors of the noise from the particles. With fewer than 20 "
        "rows of monitored data, active and dead units of the upper layers can hardly be told "
        "apart.",
    )
    yield Chart(
        f"units/dead_{layer}",
        units - active,
        f"Dead units among the {units} units of latent layer {layer} (1 is the lowest): their mean "
        "under Q is about the same for all data, so they carry no information about the data.",
    )


# Categories and charts of the Custom Scalars tab. A chart shows its tags for all runs, so that the
# curves of training and validation are in one.
LAYOUT: dict[str, dict[str, list[str]]] = {
    "Training and validation": {
        "log-likelihood and ELBO (nats)": [LOG_LIKELIHOOD, ELBO],
        "effective sample size / K": [ESS_SHARE],
    },
    "Latent layers": {
        "KL divergence of each layer (nats)": ["layers/kl_"],
        "entropy of Q in each layer (nats)": ["layers/entropy_"],
        "active units of each layer": ["units/active_"],
        "dead units of each layer": ["units/dead_"],
    },
    "Optimization": {
        "standard deviation of the log-weights (nats)": [SPREAD],
        "gradient norm of each layer": ["gradient_norm/"],
        "learning rate": ["training/learning_rate"],
    },
}


def _expression(tag):
    """The regular expression of a tag, or of all that begin with what ends in `_` or `/`."""
    return f"^{re.escape(tag)}" + (".*" if tag[-1] in "_/" else "$")


def write_layout() -> None:
    """Writes the layout of the Custom Scalars tab to the current writer."""
    from tensorboard.plugins.custom_scalar import layout_pb2, summary

    layout = layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=category,
                chart=[
                    layout_pb2.Chart(
                        title=title,
                        multiline=layout_pb2.MultilineChartContent(
                            tag=[_expression(tag) for tag in of_chart]
                        ),
                    )
                    for title, of_chart in titles.items()
                ],
            )
            for category, titles in LAYOUT.items()
        ]
    )
    tf.summary.experimental.write_raw_pb(summary.pb(layout).SerializeToString(), step=0)
