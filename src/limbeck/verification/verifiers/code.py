"""Programs that pass tests."""

from __future__ import annotations

import json
import os
import re
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.verification.answers import fenced, without_thought
from limbeck.verification.types import Candidate, Verdict, Verifier, reference_of

_LANGUAGES = ("", "python", "python3", "py")
_RUNNER = Path(__file__).parents[1] / "run_code.py"


@part
class Code(Verifier):
    """The answer is a Python program that passes the row's tests.

    The reference is the tests as text, or a mapping: `test`, and where wanted `entry_point` (the function's name;
    tests that define `check` are called with it, as in HumanEval) and `prompt` (the beginning of the program: an
    answer that does not define the function itself is its continuation). The program is the last fenced block that
    defines the function, else all fenced blocks, else the whole answer.

    Each program runs in a process of its own: a new Python in isolated mode, an empty folder that is deleted
    afterwards, an empty environment, limits on time, memory and files, no network, no further processes, no `ctypes`;
    the process group is killed at the end. This is a guard against accidents, not a sandbox: a program can read what
    the user can read, and one written to do harm will find a way out. Run untrusted teachers in a container.

    Reasons: `right`, `wrong` (a test failed), `error`, `syntax_error`, `timeout`, `memory`, `exited`, `crashed`,
    `no_code`.

    Reference:
        Chen et al., Evaluating Large Language Models Trained on Code, 2021, arXiv:2107.03374.
    """

    timeout: float = Field(default=10.0, gt=0)
    """Seconds that a program may take."""
    memory: int = Field(default=1024, ge=64)
    """Mebibytes of address space that it may take."""
    file_size: int = Field(default=16, ge=0)
    """Mebibytes that a file which it writes may have."""
    workers: int = Field(default=2, ge=1)
    """Programs that run at a time."""

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        tasks = [self._task(each) for each in candidates]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._run, tasks))

    def _task(self, candidate: Candidate) -> tuple[str, str] | None:
        """Program and test; None without a program."""
        told: Any = reference_of(candidate, self.type())
        told = {"test": told} if isinstance(told, str) else told
        known = isinstance(told, Mapping) and set(told) <= {"test", "entry_point", "prompt"}
        if not known or not all(isinstance(v, str) for v in told.values()) or not told.get("test", "").strip():
            raise DataError(
                f"the reference of prompt {candidate.prompt} holds no tests",
                got=repr(told)[:200],
                allowed="tests as text, or {test, entry_point, prompt}",
            )
        test, name = told["test"], told.get("entry_point")
        if name is not None and not name.isidentifier():
            raise DataError(f"the entry point of prompt {candidate.prompt} is no name", got=name)
        try:
            compile(test, "test.py", "exec")
        except (SyntaxError, ValueError) as error:
            raise DataError(f"the tests of prompt {candidate.prompt} are no Python", got=error) from error
        if name is not None and re.search(r"^def check\(", test, re.MULTILINE):
            test += f"\ncheck({name})\n"
        program = program_of(candidate.content, told.get("prompt", ""), name)
        return None if program is None else (program, test)

    def _run(self, task: tuple[str, str] | None) -> Verdict:
        if task is None:
            return Verdict(False, "no_code")
        token = secrets.token_hex(16)
        limits = {"seconds": int(self.timeout) + 1, "memory": self.memory << 20, "file": self.file_size << 20}
        body = json.dumps({"program": task[0], "test": task[1], "limits": limits, "token": token})
        with tempfile.TemporaryDirectory(prefix="limbeck-code-", ignore_cleanup_errors=True) as folder:
            code, out = _run_in(folder, body.encode(), self.timeout)
        if code is None or code == -signal.SIGXCPU:
            return Verdict(False, "timeout")
        try:
            told = json.loads(out)
        except ValueError:
            told = {}
        if not isinstance(told, dict) or told.get("token") != token:
            return Verdict(False, "exited" if code == 0 else "crashed", f"exit status {code}")
        return Verdict(told["outcome"] == "right", told["outcome"], told["detail"] or None)


def program_of(content: str, prompt: str = "", name: str | None = None) -> str | None:
    """The program that an answer gives.

    Args:
        content: the answer.
        prompt: the beginning of the program, which the answer may continue.
        name: the function that the program has to define.

    Returns:
        A whole program, or None where the answer gives none.
    """
    rest = without_thought(content)
    if rest is None or not rest.strip():
        return None
    blocks = fenced(rest, _LANGUAGES)
    defines = None if name is None else re.compile(rf"^(?:async\s+)?(?:def|class)\s+{name}\b|^{name}\s*=", re.MULTILINE)
    program = "\n\n".join(blocks) if blocks else rest.strip("\n")
    if defines is not None and blocks:
        program = next((block for block in reversed(blocks) if defines.search(block)), program)
    if defines is None or defines.search(program):
        # What the prompt imports and defines may be needed; its own function is only replaced.
        return f"{_stub(prompt)}\n{program}\n" if prompt else program
    return f"{prompt}{program}\n"


def _stub(prompt: str) -> str:
    """A prompt that ends within its last function, made whole."""
    try:
        compile(prompt, "prompt.py", "exec")
    except SyntaxError:
        return f"{prompt.rstrip()}\n    pass\n"
    return prompt


def _run_in(folder: str, body: bytes, timeout: float) -> tuple[int | None, bytes]:
    """Exit status (None: killed for its time) and output."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", str(_RUNNER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "HOME": folder},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    end = time.monotonic() + timeout
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(body)
            process.stdin.close()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                return None, b""
        # The verdict is one line; a program that floods the pipe must not fill this process's memory.
        out = os.read(process.stdout.fileno(), 1 << 16)
        return process.wait(max(0.0, end - time.monotonic())), out
    except subprocess.TimeoutExpired:
        return None, b""
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                stream.close()
