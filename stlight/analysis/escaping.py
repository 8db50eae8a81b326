"""Escape text for each format that the analysis writes. Titles, names and reasons may hold anything that YAML or a log can.

Figures need no more than `plain`, because `write_figures` turns Matplotlib's mathtext off.
"""

import re
import unicodedata
from typing import Any

import pandas as pd

# Control characters, surrogates and code points that are no characters. XML 1.0, and so SVG, has no way to write them.
_NOT_TEXT = {"Cc", "Cs", "Cn"}

_CODE = re.compile(r"(`[^`|\n]+`)")
# Where CommonMark or GitHub would see markup. Elsewhere these characters are text, and easier to read without a backslash.
_MARKUP = re.compile(
    r"""\\(?=[!-/:-@[-`{-~]|$)      # a backslash that would escape
    | [`*|$~]
    | <(?=[A-Za-z/!?])              # a tag, a comment or a link
    | &(?=\#|[A-Za-z]\w*;)          # an entity
    | (?<![^\W_])_ | _(?![^\W_])    # emphasis, unless within a word
    | \](?=[(\[:])                  # a link
    | ^[-+=>\#]+(?=\s|$) | ^>       # a list, a heading, a rule or a quotation
    | (?<=^\d)[.)](?=\s)
    | (?<=\s)\#+$                   # the end of a heading""",
    re.VERBOSE,
)

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%_#${}"}
_LATEX |= {"–": "--", "—": "---", "’": "'", "‘": "`", "“": "``", "”": "''", '"': "''", "…": r"\dots{}", "†": r"\dag{}"}
_LATEX |= {"<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "²": "$^2$", "τ": r"$\tau$", "·": r"$\cdot$", "→": r"$\to$"}
_LATEX |= {"±": r"$\pm$", "×": r"$\times$", "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$"}
_LATEX |= {"↓": r"$\downarrow$", "↑": r"$\uparrow$"}
# After the `\\` that ends a row, these would be its arguments.
_LATEX |= {"[": "{[}", "*": "{*}"}

_FORMULA = ("=", "+", "-", "@")
_NUMBERS = re.compile(r"[-+]?(\d+(\.\d*)?([eE][-+]?\d+)?[KMG]?|inf|nan)?(;[-+]?(\d+(\.\d*)?([eE][-+]?\d+)?|inf|nan))*")


def plain(text: str) -> str:
    """Return text in one line, with spaces instead of what is no text."""
    return " ".join(_without_controls(text).split())


def markdown(text: str) -> str:
    """Return Markdown that shows the text in one line of a paragraph, heading, list or table. Code in backticks stays code."""
    pieces = _CODE.split(plain(text))
    return "".join(piece if i % 2 else _MARKUP.sub(_with_backslash, piece) for i, piece in enumerate(pieces))


def latex(text: str) -> str:
    """Return LaTeX that shows the text, also in a table. What pdfLaTeX has no letter for is written like [U+1F600]."""
    return "".join(_LATEX.get(c) or (c if c.isascii() else _latex_letter(c)) for c in plain(text))


def csv(table: pd.DataFrame) -> str:
    """Return a table as CSV. A quote before text that begins like a formula keeps spreadsheets from computing it."""
    return str(table.rename(columns=_as_cell).map(_as_cell).to_csv(index=False))


def html(value: Any) -> Any:
    """Return a value without what is no text, for a template that escapes the rest. Line breaks are kept."""
    if type(value) is not str:
        return value
    return "\n".join(map(_without_controls, value.split("\n")))


def _without_controls(text: str) -> str:
    return "".join(" " if unicodedata.category(c) in _NOT_TEXT else c for c in text)


def _with_backslash(match: re.Match[str]) -> str:
    return f"\\{match[0]}"


def _latex_letter(character: str) -> str:
    """Return an accented letter of Latin-1 as it is, and the number of any other character."""
    accented = character.isalpha() and character <= "ÿ" and unicodedata.decomposition(character)
    return character if accented and "<" not in accented else f"{{[}}U+{ord(character):04X}]"


def _as_cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = _without_controls(value).strip() if not value.isprintable() else value
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _NUMBERS.fullmatch(text) else text
