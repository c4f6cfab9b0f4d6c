"""Seeds of the steps of `fit` and of the batches of `evaluate`: a seed with a counter."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from rws_keras.checks import check_seed
from rws_keras.layers.noise import Seed, stateless_seed


def sequence_seed(seed: Seed) -> tf.Tensor:
    """The seed of the first of a sequence of steps; its second word is a counter."""
    seed = check_seed(seed)
    if seed is None or tf.is_tensor(seed):
        return stateless_seed(seed)
    if -(2**31) <= seed < 2**31:
        return tf.constant([seed, 0])
    # Both words of a larger one affect both words here.
    digest = hashlib.sha256(str(seed).encode()).digest()
    return tf.constant(np.frombuffer(digest, np.int32, count=2))


def seed_variable(seed: Seed) -> tf.Variable:
    """A seed with a counter. Replicas have the same one and increase it together."""
    return tf.Variable(
        sequence_seed(seed),
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def next_seed(variable: tf.Variable) -> tf.Tensor:
    """Increases the counter and returns the seed of this step, which differs between replicas."""
    seed = tf.identity(variable)
    variable.assign(seed + tf.constant([0, 1]))
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return seed
    return tf.random.fold_in(seed, replica.replica_id_in_sync_group)
