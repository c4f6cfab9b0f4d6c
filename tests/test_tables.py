"""Tables from files, and their columns as units."""

import gzip

import numpy as np
import pandas as pd
import pytest

from rws_keras.datasets import Column, Schema, read_table
from rws_keras.errors import UserError


@pytest.fixture
def written(tmp_path):
    """A function that writes a file and returns its path."""

    def write(content, name="data.csv", encoding="utf-8"):
        path = tmp_path / name
        data = content.encode(encoding)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "smokes,age group\nyes,old\n,young\nno,old\n"),
        ("a.csv", "smokes;age group\r\nyes;old\r\n;young\r\nno;old\r\n"),
        ("a.csv", "\ufeffsmokes,age group\nyes,old\nNA,young\nno,old"),
        ("a.csv", '"smokes","age group"\n"yes","old"\n"","young"\n"no","old"\n\n'),
        ("a.csv.gz", "smokes,age group\nyes,old\n,young\nno,old\n"),
        ("a.tsv", "smokes\tage group\nyes\told\nnan\tyoung\nno\told\n"),
        ("a.txt", "smokes|age group\n yes | old\n|young\nno|old\n"),
    ],
)
def test_tables_of_all_kinds(written, name, content):
    table = read_table(written(content, name))
    assert list(table.columns) == ["smokes", "age group"]
    assert table["smokes"].tolist()[::2] == ["yes", "no"]
    assert table["smokes"].isna().tolist() == [False, True, False]
    assert table["age group"].tolist() == ["old", "young", "old"]


def test_parquet(tmp_path):
    table = pd.DataFrame({"a": [True, False, None], "b": ["x", "y", "z"], "c": [0, 1, 1]})
    table.to_parquet(tmp_path / "a.parquet")
    schema = Schema.infer(read_table(tmp_path / "a.parquet"))
    found = schema.encode(read_table(tmp_path / "a.parquet"))
    assert schema.units == ["a", "b=x", "b=y", "b=z", "c"]
    expected = [[1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [np.nan, 0, 0, 1, 1]]
    np.testing.assert_array_equal(found, np.float32(expected))
    with pytest.raises(UserError, match="has no effect"):
        read_table(tmp_path / "a.parquet", header=True)


@pytest.mark.parametrize(
    ("content", "has_header"),
    [
        ("0,1\n1,1\n0,0\n", False),
        ("0,1\n1,1\n1,0\n", False),  # a 0 that is not found below
        ("p0,p1\n1,1\n0,0\n", True),
        ("yes,no\nno,no\nyes,yes\n", False),  # all are found below
        ("yes,yes\nno,no\n", False),
        ("name,\nno,no\n", False),
        ("a,b\n", False),  # a single line
    ],
)
def test_whether_the_first_line_has_names(written, content, has_header):
    path = written(content)
    lines = content.count("\n")
    assert len(read_table(path)) == lines - has_header
    assert len(read_table(path, header=False)) == lines
    if has_header:
        assert len(read_table(path, header=True)) == lines - 1


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("", "utf-8", "is empty"),
        ("a,b\n1,0\n1\n", "utf-8", "line 3: 1 cells, but the first line has 2"),
        ("größe,b\n1,0\n", "latin-1", "not text in UTF-8"),
        ("a,a\n1,0\n", "utf-8", "several columns 'a'"),
    ],
)
def test_damaged_tables_are_refused(written, content, encoding, message):
    path = written(content, encoding=encoding)
    with pytest.raises(UserError, match=message) as error:
        read_table(path, header=True)
    assert str(path) in str(error.value)


def test_files_that_are_no_tables_are_refused(tmp_path, written):
    with pytest.raises(UserError, match="There is no file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match="ends in"):
        read_table(written("a", "a.xlsx"))
    with pytest.raises(UserError, match="cannot be read"):
        read_table(written("a,b\n", "plain.parquet"))
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,0\n" * 1000)[:30])
    with pytest.raises(UserError, match="cannot be read"):
        read_table(path)


def column(*values, **options):
    return Schema.infer(pd.DataFrame({"c": list(values)}, dtype=object), **options).columns[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("0", "1"), ("0", "1")),
        ((1.0, 0.0, np.nan), ("0", "1")),
        ((True, False), ("false", "true")),
        (("Yes", "no"), ("no", "Yes")),
        (("0", "0"), ("0", "1")),
        (("yes", None), ("no", "yes")),
        (("male", "female"), ("female", "male")),
        (("b", "a", "c"), ("a", "b", "c")),
    ],
)
def test_values_of_a_column(values, expected):
    assert column(*values) == Column("c", expected)


def test_numbers_are_choices_only_if_it_is_said():
    with pytest.raises(UserError, match=r"'c' has numbers \(1, 10, 2\).*pandas.cut"):
        column(1, 2, 10)
    assert column(1, 2, 10, choices=["c"]).values == ("1", "2", "10")
    with pytest.raises(UserError, match="no column 'd'"):
        column(1, 2, 10, choices=["d"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((None, None), "is empty"),
        (("x", "x"), "is always 'x'"),
        ([f"name {i}" for i in range(51)], "has 51 values"),
    ],
)
def test_columns_of_no_use_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        column(*values)


@pytest.fixture
def table():
    return pd.DataFrame(
        {"smokes": ["no", "yes", None, "no"], "blood": ["A", "0", "AB", None]}, dtype=object
    )


def test_a_table_survives_its_units(table):
    schema = Schema.infer(table)
    x = schema.encode(table[["blood", "smokes"]])
    nan = np.nan
    expected = [[0, 0, 1, 0], [1, 1, 0, 0], [nan, 0, 0, 1], [0, nan, nan, nan]]
    np.testing.assert_array_equal(x, np.float32(expected))
    assert schema.units == ["smokes", "blood=0", "blood=A", "blood=AB"]
    assert schema.groups == [1, 3]
    pd.testing.assert_frame_equal(schema.decode(x), table)
    again = Schema.from_config(schema.get_config())
    assert again.columns == schema.columns


def test_errors_name_row_and_column(table):
    schema = Schema.infer(table)
    changed = table.copy()
    changed.loc[2, "blood"] = "B"
    with pytest.raises(UserError, match=r"a\.csv, row 3, column 'blood': 'B' is not one of"):
        schema.encode(changed, "a.csv")
    with pytest.raises(UserError, match="has no column 'blood'"):
        schema.encode(table[["smokes"]])
    with pytest.raises(UserError, match=r"\[N, 4\]"):
        schema.decode(np.zeros([2, 3]))
    with pytest.raises(UserError, match="Row 1: the units of column 'blood'"):
        schema.decode(np.array([[0, 1, 1, 0]]))
    with pytest.raises(UserError, match="Row 1: the units of column 'smokes'"):
        schema.decode(np.array([[0.5, 1, 0, 0]]))
