"""A run as the pipeline records it."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.report.facts import Facts
from limbeck.report.render import write_report
from tests.report.made import make_facts


@pytest.fixture
def facts() -> Facts:
    return make_facts()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the whole run, written once."""
    return write_report(make_facts(), tmp_path_factory.mktemp("report"))[0]
