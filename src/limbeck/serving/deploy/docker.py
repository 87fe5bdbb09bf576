"""A folder that `docker build` and `docker compose` take."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic import Field

from limbeck._version import __version__
from limbeck.core.artifacts import sha256_of
from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.runtime.card import Card, write_card
from limbeck.serving.deploy._base import EXTRAS, MEMORY, USER, Deployment, Written, words

HTTP, GRPC = 8000, 8001
SECRET = "limbeck_token"
"""Docker's name of the token; the file is in /run/secrets."""
_HEALTH = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"
_DOCKERFILE = """\
FROM python:{python}-slim
ENV PYTHONUNBUFFERED=1 HOME=/tmp HF_HUB_OFFLINE=1
WORKDIR /opt/limbeck
{copy}
# Wheels of torch for CPUs alone: those on PyPI bring some gigabytes for GPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt {requirement}
COPY models/ /models/
USER {user}:{user}
EXPOSE {http} {grpc}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD {health}
ENTRYPOINT ["limbeck", "serve"]
CMD {words}
"""


@part
class Docker(Deployment):
    """A folder with Dockerfile, compose.yaml, the student, and the versions of all packages that are here."""

    cpus: int = Field(default=2, ge=1)
    """Processors of a container, and threads of a batch."""
    memory: str = Field(default="2Gi", pattern=MEMORY)
    """Of a container."""
    image: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9._/:-]*$")
    """What the image is called. Left out: limbeck-NAME."""
    wheel: Path | None = None
    """A wheel of limbeck that the image is to have. Left out: this version, from where pip finds it."""

    def depends(self, card: Card) -> Mapping[str, Any]:
        wheel = None if self.wheel is None or not self.wheel.is_file() else sha256_of(self.wheel)
        return {"packages": pins(f"limbeck[{EXTRAS[card.format]}]")[0], "wheel": wheel}

    def write(self, student: Path, card: Card, name: str, folder: Path) -> Written:
        # Others than their owner must be able to read them: modes are not copied.
        shutil.copytree(student, folder / "models" / name, copy_function=shutil.copyfile)
        write_card(card, folder / "models" / name)
        extras, copied = EXTRAS[card.format], ["constraints.txt"]
        requirement = f'"limbeck[{extras}]=={__version__}"'
        if self.wheel is not None:
            copied.append(_copied(self.wheel, folder))
            requirement = f'"./{copied[-1]}[{extras}]"'
        pinned, left = pins(f"limbeck[{extras}]")
        lines = [f"{package}=={version}" for package, version in sorted(pinned.items())]
        (folder / "constraints.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        told = words(name, f"/models/{name}", port=HTTP, threads=self.cpus, token=f"/run/secrets/{SECRET}")
        dockerfile = _DOCKERFILE.format(
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            copy=f"COPY {' '.join(copied)} ./",
            requirement=requirement,
            user=USER,
            http=HTTP,
            grpc=GRPC,
            health=json.dumps(["python", "-c", _HEALTH]),
            words=json.dumps([*told, "--grpc-port", str(GRPC)]),
        )
        (folder / "Dockerfile").write_text(dockerfile, encoding="utf-8")
        compose = yaml.safe_dump(self._compose(name), sort_keys=False)
        (folder / "compose.yaml").write_text(compose, encoding="utf-8")
        notes = ["put a token into the file `token` beside compose.yaml"]
        if left:
            notes.append(f"in no certain version, since they are not here, or do not fit: {', '.join(left)}")
        if self.wheel is None:
            notes.append(f"pip must find limbeck {__version__} where the image is built; wheel takes one from here")
        return Written({"packages": len(pinned)}, tuple(notes))

    def _compose(self, name: str) -> dict[str, Any]:
        service = {
            "build": ".",
            "image": self.image or f"limbeck-{name}",
            "ports": [f"127.0.0.1:{port}:{port}" for port in (HTTP, GRPC)],
            "volumes": ["./models:/models:ro"],
            "secrets": [SECRET],
            "read_only": True,
            "tmpfs": ["/tmp"],
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "pids_limit": 512,
            "deploy": {"resources": {"limits": {"cpus": str(self.cpus), "memory": self.memory.removesuffix("i")}}},
            "stop_grace_period": "30s",
            "restart": "unless-stopped",
        }
        return {"services": {"limbeck": service}, "secrets": {SECRET: {"file": "./token"}}}


def _copied(wheel: Path, folder: Path) -> str:
    if not wheel.is_file() or not re.fullmatch(r"limbeck-[\w.+]+-py3-none-any\.whl", wheel.name):
        allowed = "limbeck-VERSION-py3-none-any.whl"
        raise RecipeError("there is no wheel of limbeck", got=str(wheel), allowed=allowed, fix="pip wheel --no-deps .")
    shutil.copyfile(wheel, folder / wheel.name)
    return wheel.name


@cache
def pins(requirement: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The versions that are installed here, of a package's requirements and theirs; not its own.

    Versions of a build for some machine (`2.13.0+cpu`) are given without it.

    Args:
        requirement: as pip takes it, with extras.

    Returns:
        Versions by package; and what has none: it is not installed here, or in a version that another does not want.
    """
    first = Requirement(requirement)
    found, left = dict[str, str](), dict[str, str]()
    seen, waiting = set[tuple[str, str]](), [first]
    while waiting:
        each = waiting.pop()
        name = canonicalize_name(each.name)
        try:
            there = distribution(name)
        except PackageNotFoundError:
            left[name] = name
            continue
        if not each.specifier.contains(there.version, prereleases=True):
            left[name] = f"{name} {there.version} (wanted: {each.specifier})"
        found[name] = Version(there.version).public
        for extra in ["", *each.extras]:
            if extra and extra not in (there.metadata.get_all("Provides-Extra") or []):
                left[str(each)] = f"{name}[{extra}]"
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += _wanted(there.requires or [], extra)
    found.pop(canonicalize_name(first.name), None)
    return {name: found[name] for name in found if name not in left}, tuple(sorted(left.values()))


def _wanted(requires: Iterable[str], extra: str) -> list[Requirement]:
    parsed = [Requirement(each) for each in requires]
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": extra})]
