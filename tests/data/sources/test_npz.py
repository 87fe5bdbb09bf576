import numpy as np
import pytest

from limbeck.core.errors import DataError
from limbeck.data.sources.npz import NPZ


def test_rows(tmp_path):
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    np.savez_compressed(tmp_path / "x.npz", image=images, label=np.array([0, 1, 0]), text=np.array(["a", "b", "c"]))
    rows = NPZ(path=tmp_path / "x.npz").load("train")
    assert len(rows) == 3
    assert set(rows[1]) == {"image", "label", "text"}
    assert (rows[1]["image"] == images[1]).all()
    assert (rows[1]["label"], rows[1]["text"]) == (1, "b")
    assert rows.rows.column("text") == ["a", "b", "c"]


def test_what_is_refused(tmp_path):
    path, load = tmp_path / "x.npz", lambda: NPZ(path=tmp_path / "x.npz").load("train")
    with pytest.raises(DataError, match="there is no file"):
        load()
    np.savez(path, a=np.zeros(3), b=np.zeros(2))
    with pytest.raises(DataError, match=r"differ in length\n  got: a: 3, b: 2"):
        load()
    np.savez(path, a=np.zeros(3), b=np.array([{}, [], 1], dtype=object))
    with pytest.raises(DataError, match="the array 'b' holds Python objects"):
        load()
    np.savez(path, a=np.float32(1))
    with pytest.raises(DataError, match="the array 'a' has no rows"):
        load()
    np.savez(path)
    with pytest.raises(DataError, match="holds no arrays"):
        load()
    for content in (b"not an archive", b"PK\x03\x04 cut short", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is not a whole NumPy archive"):
            load()
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        load()
