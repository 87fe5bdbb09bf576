import shutil

import numpy as np
import pytest
from PIL import Image

from limbeck.core.errors import DataError
from limbeck.data.sources import image_folder
from limbeck.data.sources.image_folder import ImageFolder


def picture(path, mode="RGB", value=100, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 3), value if mode in ("L", "P", "1", "I", "F", "I;16") else (value,) * len(mode)).save(
        path, **options
    )
    return path


@pytest.fixture
def animals(tmp_path):
    for name in ("dog/b.png", "dog/a.PNG", "cat/deep/c.jpg", "cat/d.gif", ".cache/x.png", "cat/.hidden"):
        picture(tmp_path / "animals" / name, **({"format": "png"} if name.endswith("hidden") else {}))
    (tmp_path / "animals" / "README.md").write_text("pets")
    (tmp_path / "animals" / "cat" / "Thumbs.db").write_text("litter")
    return tmp_path / "animals"


def test_rows_by_class_in_a_stable_order(animals):
    rows = ImageFolder(path=animals).load("train")
    assert [(row["label"], row["file"]) for row in rows] == [
        ("cat", "cat/d.gif"),
        ("cat", "cat/deep/c.jpg"),
        ("dog", "dog/a.PNG"),
        ("dog", "dog/b.png"),
    ]
    assert rows.label_names == ("cat", "dog")
    assert rows.where(0) == str(animals / "cat/d.gif")
    assert set(rows[0]) == {"image", "label", "file"}
    assert rows[3]["image"].size == (4, 3)
    assert not ImageFolder(path=animals).has("train")


def test_images_are_read_only_when_asked_for(animals, monkeypatch):
    monkeypatch.setattr(image_folder, "open_image", lambda path: pytest.fail("an image was read"))
    rows = ImageFolder(path=animals).load("train")
    assert rows.rows.column("label") == ["cat", "cat", "dog", "dog"]
    assert [row["file"] for row in rows]


@pytest.mark.parametrize(
    ("mode", "suffix", "becomes"),
    [
        *(("RGB", suffix, "RGB") for suffix in ("png", "jpeg", "webp", "bmp")),
        *(("L", suffix, "L") for suffix in ("png", "jpg")),
        *(("P", suffix, "RGB") for suffix in ("png", "gif")),
        *(("RGBA", "png", "RGB"), ("LA", "png", "L"), ("1", "png", "L"), ("CMYK", "jpg", "RGB")),
    ],
)
def test_modes(tmp_path, mode, suffix, becomes):
    image = image_folder.open_image(picture(tmp_path / f"x.{suffix}", mode))
    assert (image.mode, image.size) == (becomes, (4, 3))
    if mode in ("RGB", "L"):
        assert abs(int(np.asarray(image).mean()) - 100) <= 2


def test_transparent_palettes_and_turned_photographs(tmp_path):
    assert image_folder.open_image(picture(tmp_path / "x.png", "P", transparency=b"\x00\x10")).mode == "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6
    assert image_folder.open_image(picture(tmp_path / "x.jpg", exif=exif)).size == (3, 4)


def test_images_that_cannot_be_read(animals):
    (animals / "dog" / "b.png").write_bytes((animals / "dog" / "b.png").read_bytes()[:50])
    (animals / "dog" / "c.png").write_bytes(b"hello")
    picture(animals / "dog" / "d.png", "I;16")
    rows = ImageFolder(path=animals).load("train")
    for index, message in (
        (3, r"b\.png is not an image"),
        (4, r"c\.png is not an image"),
        (5, r"d\.png has more than 8"),
    ):
        with pytest.raises(DataError, match=message):
            rows[index]["image"]


def test_splits(animals, tmp_path):
    root = tmp_path / "all"
    shutil.copytree(animals, root / "train")
    shutil.copytree(animals / "dog", root / "val" / "dog")
    source = ImageFolder(path=root)
    assert [source.has(split) for split in ("train", "validation", "test")] == [True, True, False]
    assert [row["file"] for row in source.load("validation")] == ["val/dog/a.PNG", "val/dog/b.png"]
    assert len(source.load("train")) == 4
    with pytest.raises(DataError, match=r"no folder for the split 'test'\n  allowed: train, validation"):
        source.load("test")
    shutil.copytree(root / "val", root / "validation")
    with pytest.raises(DataError, match="two folders for the split 'validation'"):
        source.has("validation")


def test_nothing_is_left_out_in_silence(animals, tmp_path):
    def complaint():
        with pytest.raises(DataError) as caught:
            ImageFolder(path=animals).load("train")
        return str(caught.value)

    picture(animals / "stray.png")
    assert "stray.png lies outside of any class folder" in complaint()
    (animals / "stray.png").rename(animals / "dog" / "z.tiff")
    assert "z.tiff is not an image" in complaint()
    (animals / "dog" / "z.tiff").unlink()
    (animals / "empty").mkdir()
    assert "empty holds no images" in complaint()
    for folder, message in ((tmp_path / "none", "there is no folder"), (animals / "empty", "holds no class folders")):
        with pytest.raises(DataError, match=message):
            ImageFolder(path=folder).load("train")
    with pytest.raises(DataError, match="is a file, not a folder"):
        ImageFolder(path=animals / "README.md").fingerprint()


def test_fingerprint_follows_names_and_bytes(animals):
    seen = {ImageFolder(path=animals).fingerprint()}
    (animals / "cat" / ".hidden").unlink()
    assert ImageFolder(path=animals).fingerprint() in seen
    (animals / "dog" / "b.png").rename(animals / "dog" / "e.png")
    seen.add(ImageFolder(path=animals).fingerprint())
    picture(animals / "dog" / "e.png", value=7)
    seen.add(ImageFolder(path=animals).fingerprint())
    assert len(seen) == 3
