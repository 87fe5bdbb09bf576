"""What a server of a language model takes on, at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Beyond those of the door.

    Attributes:
        running: answers that are written at a time; None: what suits the engine.
        max_queue: requests that wait for one of these places; more are answered with 429.
        context: tokens of prompt and answer together; None: what the model has positions for.
        max_tokens: of an answer, whatever a request asks for; None: what the context leaves.
        deadline: seconds that a request may take, waiting included.
        start_seconds: that an engine may take until it is ready.
        restarts: of an engine that ends by itself, in a row, before the server gives up.
        settled: seconds after which an engine that is ready counts as running well again.
    """

    running: int | None = None
    max_queue: int = 64
    context: int | None = None
    max_tokens: int | None = None
    deadline: float = 600.0
    start_seconds: float = 900.0
    restarts: int = 3
    settled: float = 60.0
