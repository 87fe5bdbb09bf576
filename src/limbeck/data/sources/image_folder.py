"""Folders of images, one per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.core.types import Rows
from limbeck.data.sources._base import Source, Table
from limbeck.data.sources._files import DATA_SUFFIXES, ends_with, existing_folder, expanded, folder_fingerprint

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
_LITTER = {"thumbs.db", "desktop.ini"}


@part
class ImageFolder(Source):
    """A folder with a subfolder of images per class; or with `train`, `validation` (`val`) and `test` above those.

    Rows are {image, label, file}: a PIL image in RGB or L, the class, and the path within the folder.
    """

    path: Path

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        if not isinstance(value, str) or not value or ends_with(value, *DATA_SUFFIXES):
            return None
        # What can only be meant as a path is one, there or not, so that the error later speaks of a folder.
        meant = value.startswith(("/", "./", "../", "~/")) and not Path(value).suffix
        return {"path": value} if meant or os.path.isdir(expanded(value)) else None

    def has(self, split: str) -> bool:
        return self._has_splits() and self._folder(split) is not None

    def load(self, split: str) -> Rows:
        root = existing_folder(self.path)
        folder: Path | None = root
        if self._has_splits():
            folder = self._folder(split)
            if folder is None:
                there = [name for name in _SPLITS if self._folder(name)]
                raise DataError(f"{self.path} has no folder for the split '{split}'", allowed=", ".join(there))
        assert folder is not None
        files = [(file, name) for name, files in _by_class(folder).items() for file in files]
        classes = tuple(dict.fromkeys(name for _, name in files))
        return _FileRows(_Images(root, files), origin=str(folder), label_names=classes)

    def fingerprint(self) -> str:
        root = existing_folder(self.path)
        return folder_fingerprint(root, _files(root))

    def _has_splits(self) -> bool:
        return (expanded(self.path) / "train").is_dir()

    def _folder(self, split: str) -> Path | None:
        found = [p for name in _SPLITS.get(split, ()) if (p := expanded(self.path) / name).is_dir()]
        if len(found) > 1:
            both = " and ".join(p.name for p in found)
            raise DataError(f"{self.path} has two folders for the split '{split}': {both}", fix="keep one")
        return found[0] if found else None


def open_image(path: Path) -> Any:
    """A PIL image, upright and in RGB or L.

    Raises:
        DataError: it cannot be decoded, or its pixels would not fit into 8 bits.
    """
    from PIL import Image, ImageOps

    try:
        with path.open("rb") as file, Image.open(file) as opened:
            mode = opened.mode
            # A transparent palette has to go by way of RGBA.
            opaque = opened.convert("RGBA") if mode == "P" and "transparency" in opened.info else opened
            image = ImageOps.exif_transpose(opaque)
            if mode == "L" or mode in ("1", "LA"):
                return image.convert("L")
            if mode in ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa"):
                return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an image that can be read", got=error, fix="replace or remove it") from error
    raise DataError(f"{path} has more than 8 bits a channel", got=f"mode {mode}", fix="convert it to 8 bits")


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name[0] != "." and p.name.lower() not in _LITTER)


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in a stable order, without hidden ones."""
    for path in _visible(folder):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """The images of each class; anything that would be left out in silence is an error."""
    found: dict[str, list[Path]] = {}
    for entry in _visible(folder):
        if entry.is_file():
            if entry.suffix.lower() in _SUFFIXES:
                raise DataError(f"{entry} lies outside of any class folder", fix="move it into one")
            continue
        files = list(_files(entry))
        if other := [file for file in files if file.suffix.lower() not in _SUFFIXES]:
            raise DataError(f"{other[0]} is not an image", allowed=", ".join(_SUFFIXES), fix="move it elsewhere")
        if not files:
            raise DataError(f"the class folder {entry} holds no images", fix="fill it or remove it")
        found[entry.name] = files
    if not found:
        fix = f"give each class a subfolder; for a folder of data files write {{type: hub, name: {folder}}}"
        raise DataError(f"{folder} holds no class folders", fix=fix)
    return found


class _Images(Table):
    column_names = ("image", "label", "file")

    def __init__(self, root: Path, files: Sequence[tuple[Path, str]]):
        self.root, self.files = root, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return _ImageRow(self.root, *self.files[index])


@dataclass(frozen=True)
class _ImageRow(Mapping[str, Any]):
    """A row that reads its image when it is asked for it: labels and names alone touch no file."""

    root: Path
    path: Path
    label: str

    def __getitem__(self, column: str) -> Any:
        if column == "image":
            return open_image(self.path)
        return {"label": self.label, "file": self.path.relative_to(self.root).as_posix()}[column]

    def __iter__(self) -> Iterator[str]:
        return iter(_Images.column_names)

    def __len__(self) -> int:
        return len(_Images.column_names)


class _FileRows(Rows):
    """Rows that a person finds by their file, not by a number."""

    def where(self, index: int) -> str:
        return str(self.rows.files[index][0])
