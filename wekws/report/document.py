"""Documents of headings, paragraphs, lists, tables, figures and code, as Markdown and HTML.

In texts, `code` and **bold** have their Markdown meaning; everything else is literal.
"""

import base64
import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wekws.files import atomic_path

_STYLE = """
:root{color-scheme:light}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;color:#222;
background:#fff;max-width:60rem;margin:0 auto;padding:1rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.25;margin:.6rem 0 1rem}
h2{font-size:1.25rem;margin:2.4rem 0 .6rem;padding-bottom:.25rem;border-bottom:1px solid #ddd}
h3{font-size:1.05rem;margin:1.6rem 0 .4rem}
.scroll{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
.caption{color:#555;font-size:.88rem;margin:.8rem 0 -.4rem}
th,td{padding:.32rem .6rem;border-bottom:1px solid #e4e4e4;text-align:right}
th{background:#f5f6f8;border-bottom:2px solid #cfd4da;min-width:3.6rem;vertical-align:bottom}
td{vertical-align:top}
td span{white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:.4rem}
.text{text-align:left}
td.text{min-width:7rem}
@media (min-width:75rem){td.text{min-width:10rem}}
figure{margin:1.2rem 0}
figure img{width:100%;min-width:34rem;height:auto;display:block}
figcaption{color:#555;font-size:.88rem;margin-top:.3rem}
code{background:#f2f3f5;border-radius:3px;padding:.1em .3em;font-size:.9em;overflow-wrap:anywhere}
pre{background:#f2f3f5;border-radius:5px;padding:.7rem .9rem;overflow-x:auto;font-size:.85rem}
pre code{background:none;padding:0;overflow-wrap:normal}
.note{border-left:4px solid #0072B2;background:#eef5fa;padding:.6rem .9rem;margin:1rem 0}
.warning{border-left-color:#D55E00;background:#fdf1ea}
"""


@dataclass(frozen=True)
class Heading:
    """A heading."""

    text: str
    """The heading."""
    level: int = 2
    """1 is the title."""


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    """One paragraph."""
    kind: Literal["", "note", "warning"] = ""
    """Notes and warnings stand out by a coloured bar."""


@dataclass(frozen=True)
class Bullets:
    """A list of short texts."""

    items: Sequence[str]
    """One text per bullet."""


@dataclass(frozen=True)
class Table:
    """A table; its first column holds the names of the rows."""

    header: Sequence[str]
    """One name per column."""
    rows: Sequence[Sequence[str]]
    """Cells as texts."""
    caption: str = ""
    """Text above the table."""
    text_columns: Sequence[int] = ()
    """Further columns that hold words, not numbers: they are aligned left."""


@dataclass(frozen=True)
class Figure:
    """A PNG picture."""

    path: Path
    """The file; HTML pages embed it."""
    caption: str
    """Text below it, also read out to readers who cannot see it."""


@dataclass(frozen=True)
class Code:
    """Commands or other literal text."""

    text: str
    """One or more lines."""


@dataclass(frozen=True)
class Link:
    """A paragraph that links another page."""

    text: str
    """Title of the other page."""
    target: str
    """Its address, relative to this document."""


Block = Heading | Paragraph | Bullets | Table | Figure | Code | Link


def write_document(
    blocks: Sequence[Block], out_dir: str | os.PathLike[str], name: str
) -> tuple[Path, Path]:
    """Write ``name.md`` and ``name.html`` with the same content; return their paths."""
    written = []
    for kind, text in (("md", to_markdown(blocks, out_dir)), ("html", to_html(blocks))):
        written.append(Path(out_dir) / f"{name}.{kind}")
        with atomic_path(written[-1]) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return written[0], written[1]


def to_markdown(blocks: Sequence[Block], folder: str | os.PathLike[str]) -> str:
    """Return the document as Markdown; pictures are linked relative to ``folder``."""
    return "\n\n".join(_block_markdown(block, Path(folder)) for block in blocks) + "\n"


def _block_markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {inline_markdown(text)}"
        case Paragraph(text, kind):
            return f"> {inline_markdown(text)}" if kind else inline_markdown(text)
        case Bullets(items):
            return "\n".join(f"- {inline_markdown(item)}" for item in items)
        case Link(text, target):
            return f"[{inline_markdown(text)}]({target})"
        case Code(text):
            return f"```\n{text}\n```"
        case Figure(path, caption):
            link = os.path.relpath(path, folder).replace(" ", "%20")
            text = inline_markdown(caption)
            return f"![{text}]({link})\n\n*{text}*"
        case Table():
            return _table_markdown(block)


def _table_markdown(table: Table) -> str:
    aligned = ["---" if i in (0, *table.text_columns) else "---:" for i in range(len(table.header))]
    rows = [table.header, aligned, *table.rows]
    cells = [[inline_markdown(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    caption = [f"{inline_markdown(table.caption)}\n"] if table.caption else []
    return "\n".join([*caption, *lines])


def to_html(blocks: Sequence[Block]) -> str:
    """Return the document as one HTML page with the pictures embedded."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    body = "\n".join(_block_html(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _block_html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{inline_html(text)}</h{level}>"
        case Paragraph(text, kind):
            extra = f' class="note {kind}"' if kind else ""
            return f"<p{extra}>{inline_html(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{inline_html(item)}</li>" for item in items) + "</ul>"
        case Link(text, target):
            return f'<p><a href="{html.escape(target)}">{inline_html(text)}</a></p>'
        case Code(text):
            return f"<pre><code>{html.escape(text)}</code></pre>"
        case Figure(path, caption):
            data = base64.b64encode(Path(path).read_bytes()).decode("ascii")
            return (
                '<figure><div class="scroll"><img '
                f'alt="{html.escape(caption)}" src="data:image/png;base64,{data}"></div>'
                f"<figcaption>{inline_html(caption)}</figcaption></figure>"
            )
        case Table():
            return _table_html(block)


def _table_html(table: Table) -> str:
    caption = f'<p class="caption">{inline_html(table.caption)}</p>' if table.caption else ""
    kinds = [' class="text"' if i in table.text_columns else "" for i in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{kind}>{inline_html(cell)}</th>'
        for kind, cell in zip(kinds, table.header, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = [
            f"<td{kind}>{inline_html(cell) if kind else _number_html(cell)}</td>"
            for kind, cell in zip(kinds, row, strict=True)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'{caption}<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number_html(cell: str) -> str:
    """Return a cell that may break before its bracket, the interval, and nowhere else."""
    value, bracket, rest = cell.partition(" (")
    parts = [value, *([f"({rest}"] if bracket else [])]
    return " ".join(f"<span>{inline_html(part)}</span>" for part in parts)


def inline_markdown(text: str) -> str:
    """Return a text of a document as Markdown: ``<filler>`` is a text there, not a tag.

    Inside `code` everything is literal already.
    """
    pieces = text.split("`")
    pieces[::2] = (re.sub(r"<(?=[A-Za-z/!?])", r"\\<", piece) for piece in pieces[::2])
    return "`".join(pieces)


def inline_html(text: str) -> str:
    """Return a text of a document as HTML."""
    escaped = re.sub(r"(?<=\d) (?=%)", "&nbsp;", html.escape(text))
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
