"""Programs are run, judged, and kept from doing harm by accident."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from limbeck.core.errors import DataError
from limbeck.verification.types import Verdict
from limbeck.verification.verifiers.code import _run_in, program_of
from tests.verification.cases import candidate, verdict, verifier

TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9\n"
REFERENCE = {"prompt": "def square(x):\n    '''The square.'''\n", "test": TEST, "entry_point": "square"}


def judged(body: str, timeout: float = 10.0, memory: int = 1024) -> Verdict:
    """What is said of a program whose tests all pass."""
    return verdict({"type": "code", "timeout": timeout, "memory": memory}, f"{body}\n", "assert True")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("    return x * x", "right"),
        ("Sure:\n```python\ndef square(x):\n    return x ** 2\n```\nDone.", "right"),
        ("```py\ndef square(x):\n    return x\n```\nBetter:\n```py\ndef square(x):\n    return x * x\n```", "right"),
        ("    return x + x", "wrong"),
        ("    return y", "error"),
        ("    return (", "syntax_error"),
        ("", "no_code"),
    ],
)
def test_humaneval_form(content: str, reason: str) -> None:
    assert verdict("code", content, REFERENCE).reason == reason


def test_plain_tests() -> None:
    assert verdict("code", "def f(x):\n    return x", "assert f(1) == 1").ok
    assert verdict("code", "def f(x):\n    return x", "assert f(1) == 2").reason == "wrong"


def test_the_prompt_brings_its_imports() -> None:
    prompt = "from math import floor\n\ndef f(x):\n"
    assert program_of("```python\ndef f(x):\n    return floor(x)\n```", prompt, "f") is not None
    assert verdict(
        "code", "```python\ndef f(x):\n    return floor(x)\n```", {"prompt": prompt, "test": "assert f(1.5) == 1"}
    ).ok


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import sys; sys.exit(0)", "exited"),
        ("import os; os._exit(0)", "exited"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "error"),
        ("import os; os.system('true')", "error"),
        ("import subprocess; subprocess.run(['true'])", "error"),
        ("import os; os.kill(os.getppid(), 9)", "error"),
        ("open('/proc/self/environ').read()", "error"),
        ("x = [0] * 10**10", "memory"),
        ('print(\'{"outcome": "right"}\'); raise ValueError', "error"),
        ("open('here.txt', 'w').write('x')", "right"),
        ("import os\nwhile True: os.fork()", "error"),
        ("import ctypes\nctypes.CDLL(None).fork()", "error"),
        ("import socket; socket.socket(socket.AF_UNIX).connect('here')", "error"),
        ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()", "error"),
        ("held = []\nwhile True: held.append(bytes(1 << 28))", "memory"),
        ("import ctypes\nctypes.string_at(0)", "crashed"),
        ("raise ValueError(chr(0xD800))", "error"),
    ],
)
def test_guards(body: str, reason: str) -> None:
    assert judged(body).reason == reason


@pytest.mark.parametrize(
    "body",
    [
        "import numpy as np\nassert np.linalg.inv(np.eye(3)).sum() == 3",
        "import asyncio\nasyncio.run(asyncio.sleep(0))",
        "import os\nos.environ['HERE'] = 'yes'",
        "import shutil, tempfile\nwith tempfile.TemporaryDirectory() as there: open(there + '/x', 'w').close()",
    ],
)
def test_what_harms_nothing_is_let_through(body: str) -> None:
    assert judged(body).reason == "right"


def test_time_is_limited() -> None:
    start = time.monotonic()
    told = verifier({"type": "code", "timeout": 0.8}).verify(
        [candidate("while True: pass", "assert True"), candidate("import time; time.sleep(60)", "assert True")]
    )
    assert [each.reason for each in told] == ["timeout", "timeout"]
    assert time.monotonic() - start < 15


def test_nothing_outside_is_written_and_no_key_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    target = tmp_path / "outside.txt"
    assert judged(f"open({str(target)!r}, 'w').write('x')").reason == "error"
    assert judged(f"import os; os.open({str(target)!r}, os.O_WRONLY | os.O_CREAT)").reason == "error"
    assert not target.exists()
    assert judged("import os; assert 'SOME_API_KEY' not in os.environ").ok
    assert os.environ["SOME_API_KEY"] == "secret"


@pytest.mark.parametrize("reference", [None, {"tests": "x"}, {"test": ""}, {"test": "def ("}, 3])
def test_rows_without_tests_are_refused(reference: object) -> None:
    with pytest.raises(DataError):
        verdict("code", "x = 1", reference)


@pytest.mark.parametrize(
    "content",
    [
        "```bash\npip install x\n```\nThen:\n```python\ndef square(x):\n    return x * x\n```",
        "1. Write\n\n   ```python\n   def square(x):\n       return x * x\n   ```\n",
        "```json\n{}\n```\n\n```Python title=a.py\ndef square(x):\n    return x * x\n```",
    ],
)
def test_blocks_in_other_languages_are_passed_over(content: str) -> None:
    assert verdict("code", content, REFERENCE).reason == "right"


ESCAPES = {
    "rename": "open('x', 'w').close()\nos.rename('x', there)",
    "symlink": "os.symlink('x', there)",
    "folder": "os.open('new', os.O_WRONLY | os.O_CREAT, dir_fd=os.open(os.path.dirname(there), os.O_RDONLY))",
    "create": "os.open(there, os.O_RDONLY | os.O_CREAT)",
    "database": "import sqlite3\nsqlite3.connect(there)",
    "process": "from multiprocessing.util import spawnv_passfds\nimport sys\n"
    "pid = spawnv_passfds(sys.executable.encode(), [sys.executable, '-c', f'open({there!r}, chr(119))'], ())\n"
    "os.waitpid(pid, 0)",
}


@pytest.mark.parametrize("way", ESCAPES)
def test_ways_out_of_the_folder_are_closed(way: str, tmp_path: Path) -> None:
    told = judged(f"import os\nthere = {str(tmp_path / 'new')!r}\n{ESCAPES[way]}")
    assert told.reason == "error"
    assert "not allowed here" in str(told.found)
    assert not list(tmp_path.iterdir())


def test_a_flood_of_output_is_not_read(tmp_path: Path) -> None:
    program = "import os\nfor fd in range(3, 20):\n    try:\n        os.write(fd, b'x' * (1 << 25))\n"
    program += "    except OSError:\n        pass"
    limits = {"seconds": 5, "memory": 1 << 30, "file": 1 << 24}
    task = {"program": program, "test": "", "token": "", "limits": limits}
    assert len(_run_in(str(tmp_path), json.dumps(task).encode(), 2.0)[1]) <= 1 << 16
