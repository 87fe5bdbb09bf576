"""The page in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.report.html_check import Page

BROWSER = shutil.which("chromium")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="chromium is not installed: the page is not opened in a browser"
)


def browse(page: Path, profile: Path, *options: str) -> str:
    command = [str(BROWSER), *QUIET, f"--user-data-dir={profile}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def test_the_browser_builds_the_page_that_was_written(page: Path, tmp_path: Path) -> None:
    dom = Page(browse(page, tmp_path, "--dump-dom"))
    source = Page(page.read_text())
    for tag in ("section", "table", "tr", "figure", "svg", "path", "use", "text", "desc", "li", "details"):
        assert len(dom.root.all(tag)) == len(source.root.all(tag)) > 0, tag
    assert dom.root.all("h1")[0].text == "banking77: MiniLM, six layers into two"
    headline = next(e for e in dom.elements() if e.attrs.get("class") == "headline")
    assert headline.text.startswith("The student keeps 98.6")


@pytest.mark.parametrize(("scheme", "light"), [(1, True), (0, False)], ids=["light", "dark"])
def test_the_page_is_painted(page: Path, tmp_path: Path, scheme: int, light: bool) -> None:
    shot = tmp_path / "shot.png"
    options = ("--window-size=900,2400", f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}")
    browse(page, tmp_path / "profile", *options)
    with Image.open(shot) as image:
        rgb = image.convert("RGB")
        assert (sum(rgb.getpixel((2, 2))) > 3 * 128) == light  # type: ignore[arg-type]
        lines = [rgb.crop((0, y, rgb.width, y + 200)) for y in range(0, 2000, 200)]
        assert all(len(line.getcolors(1 << 20) or ()) > 20 for line in lines), "a stretch of the page is blank"
        hues = {(r > g + 40, b > r + 40) for _, (r, g, b) in rgb.getcolors(1 << 24) or ()}  # type: ignore[misc]
        assert len(hues) == 3, "the curves have no colour"


@pytest.mark.parametrize("width", [500, 1100])
def test_nothing_sticks_out_of_the_window(page: Path, tmp_path: Path, width: int) -> None:
    # The page itself has no script; this copy measures itself.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy in page.read_text()
    measure = "<script>document.title = document.documentElement.scrollWidth + ' of ' + innerWidth</script></body>"
    copy = tmp_path / "copy.html"
    copy.write_text(page.read_text().replace(policy, "").replace("</body>", measure))
    dom = Page(browse(copy, tmp_path / "profile", f"--window-size={width},900", "--dump-dom"))
    inner, _, outer = dom.root.all("title")[0].text.partition(" of ")
    assert int(inner) <= int(outer)
