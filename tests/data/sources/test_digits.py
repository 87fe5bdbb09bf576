from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from limbeck.core.errors import DataError
from limbeck.core.parts import build
from limbeck.data.sources.digits import Digits


def test_the_splits_part_all_digits_in_proportion():
    source = build("source", "digits")
    train, test = source.load("train"), source.load("test")
    assert (len(train), len(test)) == (1348, 449)
    assert source.has("train")
    assert source.has("test")
    assert not source.has("validation")
    shares = Counter(row["label"] for row in test)
    assert all(abs(shares[d] - count / 4) <= 1 for d, count in Counter(load_digits().target.tolist()).items())
    assert train.label_names == tuple("0123456789")
    both = Counter(row["image"].tobytes() for rows in (train, test) for row in rows)
    assert both == Counter(np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images)
    assert (train[0]["image"].dtype, train[0]["image"].shape) == (np.uint8, (8, 8))
    assert max(row["image"].max() for row in train) == 255


def test_the_same_every_time():
    a, b = Digits().load("test"), Digits().load("test")
    assert all((x["image"] == y["image"]).all() and x["label"] == y["label"] for x, y in zip(a, b, strict=True))
    assert Digits().fingerprint() == Digits(test_size=0.25).fingerprint() != Digits(test_size=0.5).fingerprint()


def test_there_is_no_validation_split():
    with pytest.raises(DataError, match=r"no split 'validation'\n  allowed: train, test"):
        Digits().load("validation")
