"""The order in which log-probabilities of several layers are added."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exact import EVERY_FAMILY
from graphs import optimized_graphs
from marks import slow_except

import rws_keras
from rws_keras.models.particles import Particles


def sums_in_no_fixed_order(graph):
    """Sums of three or more floats by the kernel whose order depends on other operations.

    `AddN` starts with the first term whose memory it may reuse, which is none that another
    operation has yet to read.
    """
    inputs = [source for node in graph.node for source in node.input if not source.startswith("^")]
    return [
        node.name
        for node in graph.node
        if node.op == "AddN"
        and tf.as_dtype(node.attr["T"].type).is_floating
        and len(terms := [source for source in node.input if not source.startswith("^")]) > 2
        and any(inputs.count(term) > 1 for term in terms)
    ]


@pytest.mark.parametrize("kept", [[], [0], [0, 1], [0, 1, 2], [1, 2], [2]])
def test_log_weights_do_not_depend_on_who_else_reads_their_terms(kept):
    rng = np.random.default_rng(0)
    parameters = rng.normal(size=(3, 1000), scale=3.0).astype(np.float32)

    @tf.function(autograph=False)
    def weigh(parameters):
        terms = [-tf.abs(row) for row in tf.unstack(parameters)]
        weights = Particles([], terms, [tf.zeros_like(terms[0])]).log_weights
        return weights, [terms[i] for i in kept]

    first, second, third = -np.abs(parameters)
    assert not np.array_equal(first + second + third, third + second + first)
    np.testing.assert_array_equal(weigh(parameters)[0], first + second + third)


@pytest.mark.parametrize("family", slow_except(["sbn"], EVERY_FAMILY))
def test_all_sums_have_a_fixed_order(family, binary):
    x = binary(20, 6)
    machine = rws_keras.HelmholtzMachine.from_sizes(6, [5, 4, 3], p=family, q=family)
    objective = rws_keras.objectives.ReweightedWakeSleep(num_particles=4)
    # Without XLA, which decides on the order when it compiles.
    machine.compile(keras.optimizers.Adam(), objective, jit_compile=False)
    # With validation data, which `evaluate` and `predict` treat alike.
    graphs = optimized_graphs(lambda: machine.fit(x, batch_size=20, validation_data=x, verbose=0))
    assert any(node.op == "StatelessRandomUniformV2" for graph in graphs for node in graph.node)
    assert [name for graph in graphs for name in sums_in_no_fixed_order(graph)] == []
