"""Odd but ordinary data: each kind works in every method, or is refused with what to do."""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf

from rws_keras import HelmholtzMachine
from rws_keras.errors import UserError
from rws_keras.objectives import ReweightedWakeSleep

X = (np.random.default_rng(0).random([30, 12]) < 0.4).astype(np.uint8)
ROWS = scipy.sparse.csr_array(X)
METHODS = ("fit", "evaluate", "predict")
ON_ARRAYS = (*METHODS, "log_likelihood", "train_on_batch", "test_on_batch", "predict_on_batch")


@pytest.fixture(scope="module")
def machine():
    machine = HelmholtzMachine.from_sizes(12, [5, 3], seed=0)
    machine.compile("adam", ReweightedWakeSleep(2), num_particles=3, jit_compile=False)
    return machine


def use(machine, method, x):
    """The number of rows that a method has seen of the data."""
    if method == "log_likelihood":
        return len(machine.log_likelihood(x, 3).log_likelihood)
    quiet = {} if method.endswith("on_batch") else {"verbose": 0}
    if method == "fit":
        history = machine.fit(x, validation_data=x, **quiet).history
        assert history["num_data"] == history["val_num_data"]
        return history["num_data"][0]
    result = getattr(machine, method)(x, **quiet)
    return len(result) if method.startswith("predict") else result[-1]


def nullable(dtype):
    return pd.DataFrame(X).astype(dtype)


WORKS = {
    **{f"sparse {kind}": getattr(scipy.sparse, f"{kind}_array")(X) for kind in
       ("csr", "csc", "coo", "lil", "dok", "bsr")},
    "sparse matrix of bools": scipy.sparse.csr_matrix(X.astype(bool)),
    "sparse in halves": scipy.sparse.csr_array(
        (np.full(2 * ROWS.nnz, 0.5), np.repeat(ROWS.indices, 2), 2 * ROWS.indptr), X.shape
    ),
    "TensorFlow's sparse": tf.sparse.from_dense(X),
    "images": X.reshape(-1, 3, 4),
    "images with a channel": X.reshape(-1, 3, 4, 1),
    "a dict": {"image": X},
    "a dict of images": {"image": X.reshape(-1, 3, 4, 1)},
    "lists": X.tolist(),
    "a list of arrays": list(X),
    "tuples": tuple(map(tuple, X.tolist())),
    "a data frame": pd.DataFrame(X, columns=list("abcdefghijkl")),
    "a data frame of bools": nullable(bool),
    "a nullable data frame": nullable("Int64"),
    "a sparse data frame": nullable(pd.SparseDtype("int", 0)),
    "a data frame of numbers as text": nullable(str),
    "a masked array without gaps": np.ma.masked_array(X, mask=False),
    "objects": X.astype(object),
    "numbers as text": X.astype(str),
    "a matrix": np.asmatrix(X),
    "Fortran's order": np.asfortranarray(X),
    "big-endian": X.astype(">f4"),
    "a variable": tf.Variable(X),
    "a Keras variable": keras.Variable(X.astype("float32")),
    "bfloat16": tf.cast(X, tf.bfloat16),
    "NumPy's bfloat16": tf.cast(X, tf.bfloat16).numpy(),
    **{dtype: X.astype(dtype) for dtype in
       ("bool", "int8", "uint16", "uint32", "uint64", "int64", "float16", "float64")},
}  # fmt: skip


@pytest.mark.parametrize("kind", WORKS)
def test_works(kind, machine):
    for method in ON_ARRAYS:
        assert use(machine, method, WORKS[kind]) == 30, method


@pytest.mark.parametrize(
    "kind", ["sparse csc", "images", "a dict", "lists", "a nullable data frame"]
)
def test_each_row_has_the_likelihood_that_it_has_in_an_array(kind, machine):
    expected = machine.predict(X, batch_size=7, verbose=0)
    np.testing.assert_array_equal(machine.predict(WORKS[kind], batch_size=7, verbose=0), expected)


gaps = np.ma.masked_array(X, mask=np.arange(30 * 12).reshape(30, 12) == 5)
missing = pd.DataFrame(X).astype("Int64")
missing.iloc[0, 0] = pd.NA
REFUSED = {
    "other values, sparse": (scipy.sparse.csr_array(2 * X), r"among others: \[2, 2"),
    "another width, sparse": (scipy.sparse.csr_array(X[:, :5]), r"\[N, 12\].*got \(30, 5\)"),
    "another width": (X[:, :5], r"12 visible units; got \(30, 5\)"),
    "images of another size": (X.reshape(-1, 6, 1, 3), r"12 visible units; got \(20, 6, 1, 3\)"),
    "a dict of several": ({"image": X, "label": X}, r"2 entries \(image, label\)"),
    "an empty dict": ({}, r"0 entries \(none\)"),
    "rows of several lengths": ([[0, 1], [1]], "cannot be read as numbers"),
    "a ragged tensor": (tf.ragged.constant([[0] * 12, [1]]), "ragged tensor"),
    "a masked array": (gaps, r"masked array with masked values \(1\)"),
    "a data frame with gaps": (missing, "not 'NAType'"),
    "gaps": (np.where(np.eye(30, 12), np.nan, X), r"NaN.*nan"),
    "complex": (X.astype(complex), "complex numbers"),
    "a complex tensor": (tf.cast(X, tf.complex64), "complex numbers"),
    "text": (np.where(X, "yes", "no"), "could not convert string to float"),
    "a text tensor": (tf.constant(np.where(X, "yes", "no")), "are text"),
    "dates": (X.astype("datetime64[s]"), "datetime64"),
    "durations": (X.astype("timedelta64[s]"), "timedelta64"),
    "records": (np.zeros(3, [("a", int)]), "dtype"),
    "a row": (X[0], r"got \(12,\).*x\[None\]"),
    "a series": (pd.Series(X[0]), r"got \(12,\)"),
    "a number": (3, r"got \(\)"),
    "a path": ("data.csv", "'data.csv'"),
    "a set": ({1, 2}, "cannot be read as numbers"),
    "nothing": (None, r"\(None\)"),
    "no rows": (X[:0], "empty"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind, machine):
    x, message = REFUSED[kind]
    for method in ON_ARRAYS:
        with pytest.raises(UserError, match=f"(?s){message}"):
            use(machine, method, x)


def dataset(x, batched=True):
    data = tf.data.Dataset.from_tensor_slices(x)
    return data.batch(8) if batched else data


DATASETS = {
    "rows": dataset(X),
    "rows in a tuple": dataset((X,)),
    "as TFDS yields them": dataset({"image": X.reshape(-1, 3, 4, 1)}),
    "images": dataset(X.reshape(-1, 3, 4)),
    "images of another shape": dataset(X.reshape(-1, 2, 6)),
    "sparse": dataset(tf.sparse.from_dense(X)),
    "bools": dataset(X.astype(bool)),
    "of unknown shape": dataset(X).map(
        lambda x: tf.ensure_shape(tf.numpy_function(np.copy, [x], tf.uint8), None)
    ),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_datasets_work(kind, machine):
    for method in METHODS:
        assert use(machine, method, DATASETS[kind]) == 30


UNBATCHED = r"batch(\(100\)| the dataset)"
REFUSED_DATASETS = {
    "rows one by one": (dataset(X, batched=False), UNBATCHED),
    "images one by one": (dataset(X.reshape(-1, 3, 4), batched=False), UNBATCHED),
    "dicts one by one": (dataset({"image": X.reshape(-1, 3, 4, 1)}, batched=False), UNBATCHED),
    "dicts of several": (dataset({"image": X, "label": X[:, 0]}), r"\(image, label\)"),
    "pairs": (dataset((X, X[:, 0])), "takes no targets"),
    "text": (dataset(X.astype(str)), "are text"),
    "complex": (dataset(X.astype(complex)), "complex numbers"),
    "another width": (dataset(X[:, :5]), r"got \(None, 5\)"),
    "ragged": (tf.data.Dataset.from_tensors(tf.ragged.constant([[0] * 12, [1]])), "ragged"),
}


@pytest.mark.parametrize("kind", REFUSED_DATASETS)
def test_datasets_refused(kind, machine):
    data, message = REFUSED_DATASETS[kind]
    for method in METHODS:
        with pytest.raises(UserError, match=message):
            use(machine, method, data)
