"""What the documentation takes from the program when it is built, so that it cannot fall behind.

``[[commands]]`` in a page becomes the table of commands with their help, ``[[results]]`` the list of results of the
benchmarks, each a page, ``[[readme NAME]]`` the figures of that name in README.md. Formulas become MathML: no script
and no network is needed to read them.
"""

from __future__ import annotations

import argparse
import html
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "benchmarks" / "results", ROOT / "README.md"
PAGES: list[Path] = []
"""Results that are pages of this build."""
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)

_STYLED = re.compile(r'<mi mathvariant="(bold|sans-serif)">([A-Za-z])</mi>')


def on_files(files: Any, config: Any) -> Any:
    """Each file of benchmarks/results: pages and their pictures."""
    PAGES.clear()
    for path in sorted(RESULTS.iterdir()):
        if path.suffix in (".md", ".png", ".svg"):
            files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
            PAGES.extend([path] if path.suffix == ".md" else [])
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in what the program says of itself."""
    markdown = markdown.replace("[[results]]", results_list())
    markdown = re.sub(r"\[\[readme ([a-z]+)\]\]", lambda found: from_readme(found[1]), markdown)
    return markdown.replace("[[commands]]", commands_text()) if "[[commands]]" in markdown else markdown


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    formula = str(convert(html.unescape(found[3]).strip(), display="block" if found[2] == "[" else "inline"))
    return _STYLED.sub(_letters, formula)


def _letters(found: re.Match[str]) -> str:
    """Bold and sans-serif letters as characters of their own: browsers no longer style them."""
    first = {"bold": 0x1D400, "sans-serif": 0x1D5A0}[found[1]]
    shifted = "".join(chr(first + ord(c) - (ord("A") if c.isupper() else ord("a") - 26)) for c in found[2])
    return f"<mi>{shifted}</mi>"


def results_list() -> str:
    """A list of links to the pages of results, by their titles."""
    lines = []
    for path in PAGES:
        title = path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        lines.append(f"- [{title}](benchmarks/{path.name})")
    return "\n".join(lines)


def from_readme(name: str) -> str:
    """What stands in README.md between the comments ``figures:NAME`` and ``/figures:NAME``."""
    text = README.read_text(encoding="utf-8")
    return (
        text.split(f"<!-- figures:{name} -->")[1]
        .split(f"<!-- /figures:{name} -->")[0]
        .strip()
        .replace("(benchmarks/results/", "(benchmarks/")
    )


def commands_text() -> str:
    """Every command: what it does, and its help."""
    from bayesbragg.cli.main import COMMANDS

    lines = ["| command | what it does |", "|---|---|"]
    lines += [f"| [`{name}`](#{name}) | {command.summary} |" for name, command in COMMANDS.items()]
    for name in COMMANDS:
        lines += ["", f"## {name}", "", _fence(help_text(name))]
    return "\n".join(lines)


def help_text(name: str) -> str:
    """What ``bayesbragg NAME --help`` prints."""
    from bayesbragg.cli.main import COMMANDS

    module = import_module(COMMANDS[name].module)
    parser = argparse.ArgumentParser(
        prog=f"bayesbragg {name}",
        description=module.__doc__,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=110),
    )
    module.add_arguments(parser)
    return parser.format_help().strip()


def _fence(text: str) -> str:
    return f"```text\n{text}\n```"
