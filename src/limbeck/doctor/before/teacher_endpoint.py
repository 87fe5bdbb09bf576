"""Does the endpoint answer?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import Field

from limbeck.core.errors import nearest
from limbeck.core.parts import part
from limbeck.core.recipe.endpoint import Endpoint
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan


class _Stay(HTTPRedirectHandler):
    """A key must not follow a redirection to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        return None


@part
class TeacherEndpoint(BeforeCheck):
    """The endpoint is reached, takes the key, and has the model: one GET of `/models`, which costs nothing."""

    timeout: float = Field(default=10.0, gt=0)
    """Seconds to wait."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        recipe = plan.recipe
        named = [
            ("teacher", recipe.teacher),
            *((f"generate.{each.name}.writer", each.writer) for each in recipe.generate),
        ]
        seen = []
        for name, spec in named:
            endpoint = getattr(spec, "endpoint", None)
            if endpoint is not None and endpoint not in seen:
                seen.append(endpoint)
                yield self._ask(f"{name}.endpoint", endpoint)

    def _ask(self, where: str, endpoint: Endpoint) -> Finding:
        key = os.environ.get(endpoint.api_key, "").strip() if endpoint.api_key else ""
        if endpoint.api_key and not key:
            change = f"export {endpoint.api_key}=..."
            return self.found("error", f"{where}: its key is missing", f"{endpoint.api_key} is not set", change)
        url = f"{endpoint.base_url}/models"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with build_opener(_Stay()).open(Request(url, headers=headers), timeout=self.timeout) as reply:
                body = reply.read(10_000_000)
        except HTTPError as error:
            return self._refused(where, endpoint, error.code, url)
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error) or type(error).__name__
            change = f"start the server, or {where}.base_url=..."
            return self.found("error", f"{where} cannot be reached", f"GET {url}: {reason}", change)
        return self._listed(where, endpoint, body, url)

    def _refused(self, where: str, endpoint: Endpoint, status: int, url: str) -> Finding:
        evidence = f"GET {url}: status {status}"
        if status in (401, 403):
            change = f"a valid key in {endpoint.api_key}" if endpoint.api_key else f"{where}.api_key=NAME_OF_A_VARIABLE"
            return self.found("error", f"{where} refuses the key", evidence, change)
        if status in (404, 405, 501):
            return self.found("note", f"{where} answers, but lists no models", evidence)
        if status < 400:
            return self.found("error", f"{where} leads elsewhere", evidence, f"{where}.base_url=THE NEW ADDRESS")
        return self.found("error", f"{where} does not work", evidence, "try again later")

    def _listed(self, where: str, endpoint: Endpoint, body: bytes, url: str) -> Finding:
        try:
            models = [str(each["id"]) for each in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError):
            return self.found("note", f"{where} answers, but lists no models", f"GET {url}: {body[:80]!r}")
        if endpoint.model in models:
            return self.ok(f"{where} is alive and has the model", endpoint.model)
        guess = nearest(endpoint.model, models)
        change = f"{where}.model={guess or 'ONE OF THESE'}"
        return self.found("error", f"{where} has no model '{endpoint.model}'", ", ".join(models[:8]) or "none", change)
