"""The graphs that TensorFlow runs, after its graph optimizer."""

from __future__ import annotations

from collections.abc import Callable

from tensorflow.core.framework.graph_pb2 import GraphDef

# The only way to them.
from tensorflow.python.eager import context


def optimized_graphs(call: Callable[[], object]) -> list[GraphDef]:
    """The optimized graphs of the functions that a call runs."""
    context.enable_run_metadata()
    try:
        call()
        metadata = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    return [graphs.post_optimization_graph for graphs in metadata.function_graphs]
