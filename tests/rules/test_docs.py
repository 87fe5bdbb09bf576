"""The documents: generated pages are fresh, local links lead somewhere, both READMEs say the same."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*.md")])
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


def prose(page: Path) -> str:
    """The text of a page without code, in which square brackets are not links."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Targets of the links and images of a page that lead to files here."""
    found = re.findall(r"\]\(([^)\s]+)\)|<(?:img|a)\s[^>]*?(?:src|href)=\"([^\"]+)\"", prose(page))
    targets = [one or other for one, other in found]
    return [target for target in targets if not re.match(r"\w+:", target)]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path) -> list[str]:
    """The code blocks of a page, without comments."""
    found = re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s*(?<!\S)# .*$", "", block, flags=re.MULTILINE) for block in found]


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh() -> None:
    stale = [path.name for path, text in reference().pages().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "out of date: python docs/make_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_local_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{target} is not there"
        assert found.is_relative_to(ROOT), f"{target} leads out of the repository"
        assert not anchor or anchor in anchors(found), f"{target}: no such heading"


def skeleton(page: Path) -> tuple[list[str], list[int], list[str]]:
    """Levels of headings, columns of table rows, and targets of links, in order."""
    lines = prose(page).splitlines()
    levels = [line.split()[0] for line in lines if line.startswith("#")]
    columns = [line.count("|") for line in lines if line.startswith("|")]
    return levels, columns, [t.replace(".zh-CN", "") for t in links(page) if "#" not in t]


def test_the_readmes_have_the_same_parts() -> None:
    assert blocks(ENGLISH) == blocks(CHINESE)
    assert skeleton(ENGLISH) == skeleton(CHINESE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_no_path_of_one_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w$.}])/(?:home|root|work|tmp|Users|mnt|opt)/", page.read_text(encoding="utf-8"))
