"""A step reads the weights before it updates them, whatever the threads do.

TensorFlow's graph optimizer may drop the edge from reading a variable to assigning it. The
step then still gives the right result nearly always, so the optimized graph itself is
examined: any two operations on a variable, one of which writes, must come in a fixed order.
"""

import itertools

import keras
import pytest
from exact import FAMILIES
from graphs import optimized_graphs
from marks import slow_except

from rws_keras import HelmholtzMachine
from rws_keras.objectives import ReweightedWakeSleep, WakeSleep


def unordered(graph):
    """Pairs of operations on the same variable, at least one a write, in no fixed order."""
    inputs = {
        node.name: {name.lstrip("^").split(":")[0] for name in node.input} for node in graph.node
    }

    def ancestors(name):
        found, waiting = set(), [name]
        while waiting:
            new = inputs[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    before = {
        node.name: (node, ancestors(node.name))
        for node in graph.node
        if node.op.endswith("VariableOp")
    }
    return [
        (a.name, b.name)
        for (a, before_a), (b, before_b) in itertools.combinations(before.values(), 2)
        if a.input[0] == b.input[0]
        and {a.op, b.op} != {"ReadVariableOp"}
        and a.name not in before_b
        and b.name not in before_a
    ]


@pytest.mark.parametrize("objective", [WakeSleep(), ReweightedWakeSleep(3, sleep_q=False)])
@pytest.mark.parametrize("family", slow_except(["sbn"], FAMILIES))
def test_reads_and_writes_of_a_step_are_ordered(family, objective, binary):
    machine = HelmholtzMachine.from_sizes(12, [8, 4], p=family, q=family, seed=0)
    # XLA reads all variables first and writes them last; it is the other step that needs care.
    machine.compile(keras.optimizers.Adam(1e-2), objective, jit_compile=False)
    x = binary(20, 12)
    graphs = optimized_graphs(
        lambda: machine.fit(x, batch_size=10, validation_data=x, epochs=1, verbose=0)
    )
    updates = [node.name for graph in graphs for node in graph.node if "AssignSub" in node.op]
    assert len(updates) >= len(machine.trainable_variables)  # the step's graph is among them
    assert not [pair for graph in graphs for pair in unordered(graph)]
