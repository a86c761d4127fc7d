"""Settings of Sphinx. `make docs` builds the site; nothing in it is fetched from elsewhere."""

from __future__ import annotations

import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))
import entries

import procaio

if TYPE_CHECKING:
    from docutils.nodes import Node
    from sphinx.application import Sphinx

project = "procaio"
author = "the procaio authors"
version = release = procaio.__version__
html_title = f"procaio {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3

html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["procaio.css"]
manpages_url = "https://man7.org/linux/man-pages/man{section}/{page}.{section}.html"

add_module_names = False
autodoc_member_order = "bysource"
highlight_language = "text"
default_role = "py:obj"  # `name` is a link if it names something of ours, else code
maximum_signature_line_length = 80
smartquotes = False  # docstrings quote what is to be typed
toc_object_entries_show_parents = "hide"


class Entries(SphinxDirective):
    """```{procaio}: the entries of the names that follow, one a line."""

    has_content = True

    def run(self) -> list[Node]:
        """Give the entries as Sphinx understands them."""
        names = entries.listed(self.block_text)
        if unknown := [name for name in names if name not in procaio.__all__]:
            raise self.error(f"no public names of procaio: {', '.join(unknown)}")
        # Markdown around, reStructuredText within: autodoc writes nothing else.
        texts = [".. py:currentmodule:: procaio\n\n", *map(entries.entry, names)]
        block = "```{eval-rst}\n" + "".join(texts) + "```\n"
        return self.parse_text_to_nodes(block)


def to_rst(
    _app: Sphinx, _what: str, _name: str, _thing: object, _options: object, lines: list[str]
) -> None:
    """Let the docstrings of what is written in Python have the form of the others."""
    lines[:] = entries.as_rst("\n".join(lines)).splitlines()


def no_signature(
    _app: Sphinx, _what: str, _name: str, thing: object, *_details: object
) -> tuple[str, str] | None:
    """Hide how snapshots and attachments are made, which only the library does, and protocols."""
    is_ours = is_dataclass(thing) or thing is procaio.Attachment or thing is procaio.Loop
    return ("", "") if is_ours else None


def setup(app: Sphinx) -> None:
    app.add_directive("procaio", Entries)
    app.connect("autodoc-process-docstring", to_rst, priority=900)  # after napoleon
    app.connect("autodoc-process-signature", no_signature)
