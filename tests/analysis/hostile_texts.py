"""Texts that break tables, figures and pages if a writer does not escape them."""

from hypothesis import strategies as st

TITLES = [
    r"$\foo$ and $x",
    r"\input{/etc/passwd} \end{tabular} % \\ & # _ ^ ~ { }",
    "a | b || c\n| d |\n\n# e\r\n<script>alert(1)</script> <!-- -- -->",
    '=HYPERLINK("http://example.org")',
    "+1+cmd|' /C calc'!A0",
    "-1+cmd",
    "@SUM(1)",
    "[click](javascript:alert(1)) ![x](y) [z]: w",
    "**bold** _it_ ~~no~~ `code` ``` &lt; &#60;",
    "[4pt] first in its row",
    "* star after a row",
    "bell \x07, escape \x1b[31m, no character \ufffe, page \x0c, line \u2028 end",
    "1. one",
    "--- ### > quoted",
    "é Å “quoted” — 漢字 😀",
    "back\\",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %}",
]
# The letters that markup is made of, so that a search meets every combination.
TEXTS = st.sampled_from(TITLES) | st.text("\\`*_|$~<>&#;[]()!:{}^%=+-@'\"1.a \n\t\x00é✓", max_size=12) | st.text(max_size=12)
