"""The pictures in TensorBoard, without TensorBoard."""

import numpy as np
import pytest

from rws_keras import HelmholtzMachine
from rws_keras.callbacks import plots, receptive_fields, tile_images
from rws_keras.errors import UserError


@pytest.mark.parametrize("family", ["sbn", "arsbn", "nade", "made"])
def test_receptive_fields_of_upper_layers_are_products_of_kernels(family):
    machine = HelmholtzMachine.from_sizes(6, [5, 4, 3], p=family)
    w_1, w_2, w_3 = (machine.p_layers[level].kernel.numpy() for level in range(3))
    for level, product in ((1, w_1), (2, w_2 @ w_1), (3, w_3 @ w_2 @ w_1)):
        order = np.argsort(-np.linalg.norm(product, axis=1))[:2]
        largest = np.abs(product).max(axis=1, keepdims=True)
        expected = 0.5 + 0.5 * (product / largest)[order]
        np.testing.assert_allclose(receptive_fields(machine, 2, level), expected, atol=1e-6)
    with pytest.raises(UserError, match="there is no layer 4"):
        receptive_fields(machine, 2, 4)


def test_receptive_fields_of_gaussian_units():
    """Without hidden units their kernels lead to the means."""
    machine = HelmholtzMachine.from_sizes(6, [5, 4], p="gaussian", q="gaussian")
    w_1, w_2 = (machine.p_layers[level].kernel.numpy() for level in range(2))
    for level, product in ((1, w_1), (2, w_2 @ w_1)):
        strongest = product[np.linalg.norm(product, axis=1).argmax()]
        expected = 0.5 + 0.5 * strongest / np.abs(strongest).max()
        np.testing.assert_allclose(receptive_fields(machine, 1, level), [expected], atol=1e-6)


@pytest.mark.parametrize("family", ["dsbn", {"family": "gaussian", "hidden_units": 5}])
def test_no_receptive_fields_through_a_hidden_layer(family):
    """The rows of its kernel are hidden units, not latents, even where there are as many."""
    machine = HelmholtzMachine.from_sizes(6, [5, 4], p=[family, "sbn"], prior="sbn")
    assert [receptive_fields(machine, 2, level) for level in (1, 2)] == [None, None]


def test_receptive_fields_below_a_hidden_layer():
    machine = HelmholtzMachine.from_sizes(6, [5, 4], p=["sbn", "dsbn"])
    assert receptive_fields(machine, 2, 1) is not None
    assert receptive_fields(machine, 2, 2) is None


def test_the_plot_of_means():
    image = plots.means_beside(np.array([0.0, 1.0]), np.array([0.0, 0.5]), height=101).astype(int)
    blue = (image[..., 2] > image[..., 0] + 100).nonzero()
    orange = (image[..., 0] > image[..., 2] + 100).nonzero()
    half = image.shape[1] // 2
    # Sorted by the line: the unit of mean 1 comes first, and its point is halfway up.
    assert set(blue[0][blue[1] < half]) == {49, 50, 51}
    assert set(orange[0][orange[1] < half]) <= {0, 1}
    assert blue[0][blue[1] > half].min() > 95


def test_the_plot_of_means_that_are_not_finite():
    """They stand at the edges, and the finite ones set the scale."""
    line = np.array([np.inf, 3.0, 0.0, -np.inf, np.nan])
    image = plots.means_beside(line, np.array([-np.inf, 3.0, 0.0, np.inf, 0.0]), height=101)
    blue = (image[..., 2] > image[..., 0].astype(int) + 100).nonzero()
    step = image.shape[1] // 5
    rows = [set(blue[0][blue[1] // step == unit]) for unit in range(5)]
    top, bottom = {0, 1, 2}, {98, 99, 100}
    assert rows == [bottom, top, bottom, top, bottom]
    huge = np.array([1e308, -1e308])
    assert plots.means_beside(huge, -huge).any()


def test_tiles_in_so_many_columns():
    rows = np.arange(5)[:, None] * np.ones([5, 6]) / 4
    grid = tile_images(rows, (2, 3), columns=4)
    assert grid.shape == (2 * 3 + 1, 4 * 4 + 1, 1)
    assert (grid[4:6, 1:4] == 255).all()
    with pytest.raises(UserError, match="`columns` must be a positive integer"):
        tile_images(rows, (2, 3), columns=0)
