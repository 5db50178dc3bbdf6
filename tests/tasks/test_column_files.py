import numpy as np
import pytest
import torch

from ttcompress.errors import InputError, MissingExtraError, RecipeError
from ttcompress.tasks.column_files import read_columns, read_series

HOURS = "time,load,price\nmon 1,1.5,-2\nmon 2,3e0, 4.25\n"
VALUES = torch.tensor([[1.5, -2.0], [3.0, 4.25]], dtype=torch.float64)


def series(tmp_path, content, names=None):
    path = tmp_path / "data"
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        with path.open("wb") as file:
            np.savez(file, **content)
    return read_series("forecast", str(path), names)


LAYOUTS = {
    "commas": HOURS,
    "semicolons": HOURS.replace(",", ";"),
    "tabs": HOURS.replace(",", "\t"),
    "byte order mark, Windows lines, quotes": '\ufeff"time","load",price\r\n"a, b",1.5,-2\r\n'
    "c,3,4.25\r\n\r\n",
    "arrays": {"load": np.float32([1.5, 3]), "price": np.array([-2, 4.25]), "unit": np.array(3)},
    "texts beside numbers": {
        "time": np.array(["a", "b"]),
        "load": VALUES[:, 0],
        "price": [-2, 4.25],
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_are_one_series(layout, tmp_path):
    found = series(tmp_path, LAYOUTS[layout])
    assert found.names == ("load", "price")
    assert torch.equal(found.values, VALUES)
    other = series(tmp_path, LAYOUTS[layout], ["price", "load"])
    assert torch.equal(other.values, VALUES.flip(1))


def test_without_names_columns_have_numbers(tmp_path):
    assert series(tmp_path, "1.5,-2\n3,4.25").names == ("0", "1")
    assert torch.equal(series(tmp_path, "1.5,-2\n3,4.25", ["1"]).values, VALUES[:, 1:])
    found = series(tmp_path, {"x": VALUES.numpy(), "flag": np.array([True, False])})
    assert found.names == ("x.0", "x.1", "flag")
    assert torch.equal(found.values, torch.cat([VALUES, VALUES.new_tensor([[1], [0]])], 1))
    np.save(tmp_path / "one.npy", VALUES.numpy())
    assert read_series("forecast", str(tmp_path / "one.npy")).names == ("0", "1")


def test_a_slice_of_a_series_is_one(tmp_path):
    found = series(tmp_path, HOURS)[1:]
    assert (len(found), found.names) == (1, ("load", "price"))
    assert torch.equal(found.values, VALUES[1:])


BAD = {
    "a missing column": (HOURS, ["load", "heat"], "has no column 'heat'; its 3 columns are time,"),
    "text": (HOURS, ["time"], "column time: row 1 is 'mon 1', but numbers are needed"),
    "text later": ("a\n1\n2,5\n", None, "data:3: has 2 columns, but the first line has 1"),
    "a word for a gap": ("a,b\n1,2\n1,NA\n", None, "column b: row 2 is 'NA', but numbers"),
    "gaps": ("a,b\n1,2\n,3\n,4\n", None, "column a: 2 of 3 values are missing, NaN or above 1e"),
    "nan": ("a,b\n1,2\n3,nan\n", None, "column b: 1 of 2 values are missing, .* first in row 2"),
    "no number of float32": ("a\n1\n1e39\n", None, "1 of 2 values .* or above 1e.38, the first in"),
    "infinity": ({"a": np.array([1, np.inf])}, None, "column a: 1 of 2 values .* first in row 2"),
    "no numbers": ("a,b\nx,y\n", None, r"none of its 2 columns \(a, b\) begins with a number"),
    "a header alone": ("a,b\n", None, "2 names in its first line, but 0 rows"),
    "a name twice": ("a,b,a\n1,2,3\n", None, "2 of its 3 columns are called 'a'"),
    "a stray quote": ('a,b\n1,"2\n', None, "data:2: is not CSV: "),
    "unlike lengths": ({"a": np.ones(3), "b": np.ones(5)}, None, "a has 3 rows, but b has 5"),
    "pickled": ({"a": np.array([None, {}])}, None, "does not hold NumPy arrays"),
    "no series": ({"a": np.ones((2, 2, 2))}, None, r"only a \(2 x 2 x 2\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_place(name, tmp_path):
    content, names, fact = BAD[name]
    with pytest.raises(RecipeError, match=fact) as caught:
        series(tmp_path, content, names)
    assert str(caught.value).startswith(f"task forecast: {tmp_path / 'data'}:")


def test_a_damaged_archive_or_another_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    torch.save({"a": VALUES}, path)
    with pytest.raises(RecipeError, match=r"does not hold NumPy arrays: .* another file"):
        read_columns("forecast", str(path))
    np.savez(path, a=np.ones(100))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RecipeError, match="does not hold NumPy arrays"):
        read_columns("forecast", str(path))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"task forecast: .*none\.csv: no such file"):
        read_columns("forecast", str(tmp_path / "none.csv"))


def test_parquet_without_its_reader_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("ttcompress.system.extras.find_spec", lambda name: None)
    path = tmp_path / "data.csv"
    path.write_bytes(b"PAR1....PAR1")
    with pytest.raises(MissingExtraError, match=r"pip install 'ttcompress\[parquet\]'"):
        read_columns("forecast", str(path))


def test_parquet_is_one_series_more(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "data"
    table = {"time": ["a", "b"], "load": [1.5, 3.0], "price": [-2.0, 4.25], "gap": [1, None]}
    parquet.write_table(pyarrow.table(table), path)
    found = read_series("forecast", str(path), ["load", "price"])
    assert torch.equal(found.values, VALUES)
    with pytest.raises(RecipeError, match="column gap: 1 of 2 values are missing"):
        read_series("forecast", str(path))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecipeError, match="is not a Parquet file"):
        read_series("forecast", str(path))
