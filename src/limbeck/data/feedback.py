"""What a server has kept for the next round: rows on which the student was unsure, and a larger model said otherwise.

They become training rows with that model's answer for the label. A row that validation or test rows hold already never
becomes one, nor one that is among the training rows; of rows that are there twice the latest counts.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import digest_of, sha256_of, write_atomically
from limbeck.core.errors import DataError
from limbeck.core.types import Sample

FOLDER = "feedback"
"""Where a run's server keeps them."""


def files_of(path: Path) -> list[Path]:
    """The files: the one that is named, or those that a server has left in a folder.

    Raises:
        DataError: there are none.
    """
    found = [path] if path.is_file() else sorted(path.glob("feedback-*.jsonl"))
    if not found:
        fix = "limbeck serve RUN --cascade --feedback keeps them"
        raise DataError(f"there is no feedback at {path}", got="nothing", fix=fix)
    return found


def feedback_fingerprint(path: Path) -> str:
    """Changes when the rows do."""
    return digest_of([sha256_of(each) for each in files_of(path)])


def feedback_rows(path: Path) -> Iterator[dict[str, Any]]:
    """All rows, in the order in which they came; the half line that a kill has left at a file's end is left out.

    Raises:
        DataError: there are none, or a line is damaged.
    """
    for file in files_of(path):
        for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], 1):
            try:
                row = json.loads(line)
                if not isinstance(row["inputs"], dict) or not isinstance(row["label"], str):
                    raise TypeError("inputs and label")
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(f"{file}, line {number} is no row of feedback", got=error) from error
            yield row


def snapshot(paths: Sequence[Path], target: Path) -> int:
    """The rows as they are now in one file, each different input once, the latest; their number is returned.

    A server may go on writing: what is trained on must not change on the way.
    """
    latest: dict[str, dict[str, Any]] = {}
    for path in paths:
        for row in feedback_rows(path):
            key = digest_of(row["inputs"])
            latest.pop(key, None)
            latest[key] = row
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in latest.values())
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, text.encode("utf-8", "backslashreplace"))
    target.chmod(0o600)  # these are people's texts
    return len(latest)


def feedback_samples(
    path: Path, task: Any, classes: Collection[str], known: Mapping[str, Collection[bytes]], content: Any
) -> tuple[list[Sample], dict[str, int]]:
    """New training rows.

    Args:
        path: a file or a folder of them.
        task: reads a row.
        classes: that there are.
        known: by split, digests of the inputs that it holds.
        content: the digest of a sample's inputs.

    Returns:
        The samples, and how many rows were added or left out, and why.

    Raises:
        DataError: a row cannot be read.
    """
    found: dict[bytes, Sample] = {}
    counts: Counter[str] = Counter()
    for number, row in enumerate(feedback_rows(path)):
        if row["label"] not in classes:
            counts["of_no_known_class"] += 1
            continue
        fields = {role: _decoded(value, path, number) for role, value in row["inputs"].items()}
        inputs, target, meta = task.read({**fields, "label": row["label"]}, f"{path}, row {number}")
        key = content(inputs)
        split = next((name for name, digests in known.items() if key in digests), None)
        if split is not None:
            counts[f"already_in_{split}"] += 1
            continue
        counts["repeated"] += key in found
        found[key] = Sample(f"feedback/{key.hex()}", inputs, target, meta)
    counts["added"] = len(found)
    return list(found.values()), dict(counts)


def _decoded(value: Any, path: Path, number: int) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        return base64.b64decode(value["base64"], validate=True)
    except (KeyError, TypeError, binascii.Error) as error:
        raise DataError(f"{path}, row {number}: the picture cannot be read", got=error) from error
