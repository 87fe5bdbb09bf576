import shutil

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value, config
from huggingface_hub import constants
from PIL import Image as Pillow

from limbeck.core.errors import DataError
from limbeck.core.parts import build
from limbeck.data.sources.hub import Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test asks the network; each has a cache of its own."""
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pets"
    path.mkdir()
    (path / "train.jsonl").write_text('{"text": "miaow", "label": 0}\n{"text": "woof", "label": 1}\n')
    (path / "test.jsonl").write_text('{"text": "wau", "label": 1}\n')
    return path


def named(tmp_path, columns, features):
    path = tmp_path / "named"
    path.mkdir()
    Dataset.from_dict(columns, Features(features)).to_parquet(str(path / "train.parquet"))
    return Hub(name=str(path))


def test_a_local_folder_of_data_files(folder):
    source = Hub(name=str(folder))
    assert [source.has(split) for split in ("train", "validation", "test")] == [True, False, True]
    rows = source.load("train")
    assert list(rows) == [{"text": "miaow", "label": 0}, {"text": "woof", "label": 1}]
    assert rows.where(1) == f"{folder} (train), row 1"
    assert rows.label_names is None
    assert rows.rows.column("text") == ["miaow", "woof"]
    with pytest.raises(DataError, match=r"has no split 'validation'\n  allowed: train, test\n  fix: splits: "):
        source.load("validation")


def test_other_names_of_splits(folder):
    source = build("source", {"type": "hub", "name": str(folder), "splits": {"validation": "test"}})
    assert source.has("validation")
    assert list(source.load("validation")) == [{"text": "wau", "label": 1}]


def test_class_names_by_column(tmp_path):
    pets, sizes = ClassLabel(names=["cat", "dog"]), ClassLabel(names=["small", "large"])
    source = named(tmp_path, {"label": [1, 0], "stars": [4, 5]}, {"label": pets, "stars": Value("int64")})
    rows = source.load("train")
    assert (rows.label_names, rows.classes) == (("cat", "dog"), {"label": ("cat", "dog")})
    shutil.rmtree(tmp_path / "named")
    rows = named(tmp_path, {"a": [1], "b": [0]}, {"a": pets, "b": sizes}).load("train")
    assert (rows.label_names, rows.classes) == (None, {"a": ("cat", "dog"), "b": ("small", "large")})


def test_images_are_decoded_and_bad_ones_named(tmp_path):
    Pillow.new("L", (4, 4)).save(tmp_path / "a.png")
    good = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    rows = named(tmp_path, {"image": [good, {"bytes": b"no image", "path": None}]}, {"image": Image()}).load("train")
    assert rows[0]["image"].size == (4, 4)
    with pytest.raises(DataError, match=r"named \(train\), row 1 cannot be decoded"):
        rows[1]


def test_fingerprint_of_a_folder(folder):
    before = Hub(name=str(folder)).fingerprint()
    assert Hub(name=str(folder)).fingerprint() == before != Hub(name=str(folder), splits={"test": "x"}).fingerprint()
    (folder / "test.jsonl").write_text("{}\n")
    assert Hub(name=str(folder)).fingerprint() != before


def test_what_cannot_be_reached_is_explained(tmp_path):
    for ask in (Hub(name="nobody/nothing").fingerprint, lambda: Hub(name="nobody/nothing", subset="x").has("test")):
        with pytest.raises(DataError, match=r"the dataset nobody/nothing.* cannot be loaded(.|\n)*fix: check the name"):
            ask()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="fix: check that the folder holds data files"):
        Hub(name=str(tmp_path / "empty")).load("train")


def test_a_copy_is_used_offline_but_only_the_revision_asked_for(offline, folder):
    """The library alone would take any copy and warn."""
    Hub(name=str(folder)).load("train")
    (made,) = (path.parent for path in offline.rglob("dataset_info.json"))
    copy = offline / "org___pets" / "default" / "0.0.0" / COMMIT
    shutil.copytree(made, copy)
    info = (copy / "dataset_info.json").read_text().replace(made.parts[-3], "default")
    (copy / "dataset_info.json").write_text(info)
    for old in copy.glob("*.arrow"):
        old.rename(copy / old.name.replace(old.name.split("-")[0], "pets"))

    source = Hub(name="org/pets")
    assert source.has("test")
    assert len(source.load("train")) == 2
    assert Hub(name="org/pets", revision=COMMIT).fingerprint() == source.fingerprint()
    for revision in ("main", "f" * 40):
        with pytest.raises(DataError, match=rf"may not be revision {revision}\n  got: {COMMIT}"):
            Hub(name="org/pets", revision=revision).load("train")
