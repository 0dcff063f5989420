"""How Sphinx makes the site of the Markdown in this folder, for `make site`: nothing in it comes from the network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import __version__

project = "unlearning-bench"
release = version = __version__
copyright = "the authors, MIT license"
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
add_module_names = False
default_role = "code"
highlight_language = "console"  # of indented blocks, which are commands
pygments_style, pygments_dark_style = "tango", "native"
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = "unlearning-bench"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False


def _link_within_the_site(app: Sphinx, page: str, source: list[str]) -> None:
    """Pages link to files at the top of the repository, which GitHub shows; here three of them are pages as well."""
    for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"):
        for up in ("../../", "../"):
            source[0] = source[0].replace(f"]({up}{name}.md", f"]({up[3:]}{name.lower()}.md")


def _keep_figures_on_one_line(app: Sphinx, page: nodes.document) -> None:
    """A table's cells that begin with a number have a class, which the style sheet does not wrap."""
    for cell in page.findall(nodes.entry):
        if re.match(r"[−+<]?\s?\d", cell.astext()) and len(cell.astext()) < 40:
            cell["classes"].append("figures")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("doctree-read", _keep_figures_on_one_line)
    app.connect("source-read", _link_within_the_site)
