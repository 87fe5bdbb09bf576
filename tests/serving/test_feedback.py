"""What a server keeps for the next round: all of it on the disk, and never more than was allowed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ArtifactError
from limbeck.data.feedback import feedback_rows
from limbeck.serving.feedback import Feedback


def kept(folder: Path, **fields: Any) -> tuple[Feedback, Counter[str]]:
    counts: Counter[str] = Counter()

    def count(outcome: str) -> None:
        counts[outcome] += 1

    return Feedback(folder, count=count, **fields), counts


def test_rows_come_back_and_each_once(tmp_path: Path) -> None:
    store, counts = kept(tmp_path / "f")
    for i in (0, 1, 0):
        store.add({"text": f"text {i}"}, "cat", by="teacher", student="dog")
    store.add({"image": b"\x89PNG"}, "dog", by="teacher")
    store.close()

    rows = list(feedback_rows(tmp_path / "f"))
    assert [row["inputs"] for row in rows] == [
        {"text": "text 0"},
        {"text": "text 1"},
        {"image": {"base64": "iVBORw=="}},
    ]
    assert (rows[0]["label"], rows[0]["student"], rows[0]["by"]) == ("cat", "dog", "teacher")
    assert counts == {"stored": 3, "repeated": 1}
    assert stat.S_IMODE((tmp_path / "f" / "feedback-000001.jsonl").stat().st_mode) == 0o600


def test_files_have_bounds_together_and_each(tmp_path: Path) -> None:
    store, counts = kept(tmp_path / "f", max_bytes=2000, shard_bytes=300)
    for i in range(60):
        store.add({"text": f"a text of some length, number {i}"}, "cat")
    store.close()
    size = sum(file.stat().st_size for file in (tmp_path / "f").glob("*.jsonl"))

    again, later = kept(tmp_path / "f", max_bytes=2000)
    again.add({"text": "one more, which is longer than what is left of the room " * 4}, "cat")
    again.close()

    assert size <= 2000
    assert counts["stored"] + counts["full"] == 60
    assert counts["stored"] == len(list(feedback_rows(tmp_path / "f")))
    assert later == {"full": 1}


def test_one_server_at_a_time(tmp_path: Path) -> None:
    store, _ = kept(tmp_path / "f")
    with pytest.raises(ArtifactError, match="in use"):
        Feedback(tmp_path / "f")
    store.close()


KILLED = """
import os, sys
from pathlib import Path
from limbeck.serving.feedback import Feedback
done = []
def count(outcome):
    print(outcome, flush=True)
    done.append(outcome)
    if len(done) == 3:
        os.kill(os.getpid(), 9)
store = Feedback(Path(sys.argv[1]), count=count)
for i in range(9):
    store.add({"text": str(i)}, "cat")
store.close()
"""


def test_what_was_counted_outlives_a_kill(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "f")], capture_output=True, text=True, env=env)

    assert done.returncode == -9, done.stderr
    before = len(list(feedback_rows(tmp_path / "f")))
    with (tmp_path / "f" / "feedback-000001.jsonl").open("ab") as file:
        file.write(b'{"inputs": {"te')  # what a kill in the middle of a write leaves
    store, _ = kept(tmp_path / "f")
    store.add({"text": "after"}, "dog")
    store.close()
    rows = list(feedback_rows(tmp_path / "f"))
    assert before >= done.stdout.count("stored") == 3
    assert len(rows) == before + 1
    assert rows[-1]["inputs"] == {"text": "after"}


def test_other_files_in_the_folder_are_let_be(tmp_path: Path) -> None:
    store, _ = kept(tmp_path / "f")
    store.close()
    (tmp_path / "f" / "feedback-old.jsonl").write_text("")
    store, _ = kept(tmp_path / "f")
    store.add({"text": "a"}, "cat")
    store.close()

    assert (tmp_path / "f" / "feedback-000001.jsonl").exists()
