"""Rows of files as a machine takes them."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from rws_keras.datasets import Column, Schema, read_rows
from rws_keras.errors import UserError


def test_rows_of_zeros_and_ones(tmp_path):
    """Without a schema, with a header or not, as NumPy writes them and as spreadsheets do."""
    x = np.random.default_rng(0).integers(0, 2, (5, 3))
    np.savetxt(tmp_path / "floats.csv", x, delimiter=",")
    pd.DataFrame(x, columns=list("abc")).to_csv(tmp_path / "named.tsv", sep="\t", index=False)
    pd.DataFrame(x == 1, columns=list("abc"), index=list("vwxyz")).to_csv(tmp_path / "bools.csv")
    for name in ("floats.csv", "named.tsv"):
        np.testing.assert_array_equal(read_rows(tmp_path / name, units=3).x, x)
    with pytest.raises(UserError, match=r"row 1, column 'a': expected 0 or 1, got '(True|False)'"):
        read_rows(tmp_path / "bools.csv", id_column="column 1", header=True)
    named = read_rows(tmp_path / "named.tsv", id_column="b")
    np.testing.assert_array_equal(named.x, x[:, [0, 2]])
    assert named.ids == [str(value) for value in x[:, 1]]


def test_grey_levels_need_a_threshold(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (4, 2, 3), np.uint8)
    np.save(tmp_path / "grey.npy", grey)
    for number, image in enumerate(grey):
        (tmp_path / f"{number}.png").write_bytes(tf.io.encode_png(image[..., None]).numpy())
    flat = grey.reshape(4, 6)
    np.testing.assert_array_equal(read_rows(tmp_path).x, flat >= 128)
    np.testing.assert_array_equal(read_rows(tmp_path / "2.png", threshold=9).x, flat[2:3] >= 9)
    with pytest.raises(UserError, match=r"grey.npy, row 1, column 1: expected 0 or 1"):
        read_rows(tmp_path / "grey.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no file"),
        ("data.doc", b"1", "ends in"),
        ("data.npy", b"no array", "cannot be read"),
        ("data.npy", b"", "cannot be read"),
        ("data.csv", b"0,1,1,1\n0", "line 2: 1 cells, but the first line has 4"),
        ("data.csv", b"a,b\n0,1", "has 2 values in a row, but the machine has 4 visible units"),
        ("data.csv", b"0,1,1,1\n0,2,1,1", r"data.csv, row 2, column 'column 2': .*got '2'"),
        ("data.csv", b"0,1,1,1\n0,,1,1", "row 2: the value of unit 'column 2' is missing"),
        ("data.csv", b"", "is empty"),
        ("data.png", b"no image", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_told(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_rows(tmp_path / name, units=4)


def test_a_table_that_does_not_fit_the_schema(tmp_path):
    path = tmp_path / "a.csv"
    schema = Schema([Column("smokes", ("no", "yes")), Column("drink", ("beer", "milk", "tea"))])
    for text, message in (
        ("smokes,drink\nyes,tea\nno,wine\n", r"a.csv, row 2, column 'drink': 'wine' is not one of"),
        (
            "smokes,drink\nyes,tea\nno,\n",
            r"a.csv, row 2: the value of unit 'drink=beer' is missing",
        ),
        ("drink,age\ntea,1\nbeer,2\n", "a.csv has no column 'smokes'; its columns are drink, age"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_rows(path, schema=schema)


def test_an_array_of_python_objects_is_not_loaded(tmp_path):
    np.save(tmp_path / "data.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(tmp_path / "data.npy")
