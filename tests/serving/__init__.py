"""Without the extra `serve` there is nothing to test here."""

from __future__ import annotations

import pytest

for _needed in ("fastapi", "uvicorn", "prometheus_client", "grpc", "httpx"):
    pytest.importorskip(_needed)
