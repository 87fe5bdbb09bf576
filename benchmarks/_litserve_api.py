"""What LitServe serves in B10; by itself, for LitServe's workers import it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import litserve

from _servers import Direct


class Api(litserve.LitAPI):  # type: ignore[misc]
    """A student's ONNX export.

    Args:
        folder: the export.
        rows: of a batch at most.
        seconds: that the first row waits for others.
    """

    def __init__(self, folder: Path, rows: int, seconds: float):
        super().__init__(max_batch_size=rows, batch_timeout=seconds)
        self.folder, self.rows = folder, rows

    def setup(self, device: str) -> None:
        """In a worker."""
        self.direct = Direct(self.folder)

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads the types, and no text of them
        """A text's tokens."""
        return self.direct.ids(request["text"])

    def predict(self, asked: Any) -> Any:
        """Of one row, or of the rows of a batch."""
        return self.direct.answers(asked) if self.rows > 1 else self.direct.answers([asked])[0]

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        """As it is."""
        return output
