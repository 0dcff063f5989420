"""The site: builds without a warning, holds every page, and takes nothing from the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    words = ["-q", "-W", "--keep-going", "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_on_the_site_and_in_its_navigation(site: Path) -> None:
    pages = sorted(path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md"))
    home = (site / "index.html").read_text("utf-8")
    for page in pages:
        assert (site / page).is_file(), page
        assert page.name == "index.html" or f'href="{page}"' in home, page


def test_the_site_loads_nothing_from_the_network(site: Path) -> None:
    loaded = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc="([^"]+)|<link\b[^>]*?\bhref="([^"]+)""")
    for path in site.rglob("*.html"):
        found = [one or other for one, other in loaded.findall(path.read_text("utf-8"))]
        assert any(name.endswith("site.css") for name in (name.partition("?")[0] for name in found)), path
        assert not [name for name in found if "//" in name], path
    for path in site.rglob("*.css"):
        assert not re.search(r"""(?:url\(|@import\s*)["']?(?:https?:)?//""", path.read_text("utf-8")), path
