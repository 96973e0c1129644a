"""The Chinese README's table of the article's statements says what lstm.py has."""

import itertools
import re

import pytest
from conftest import ROOT

CHINESE = ROOT / "ptb" / "docs" / "README.zh-CN.md"


def statements():
    """Returns (the article's statements, what became of them) of each row of the table."""
    lines = CHINESE.read_text(encoding="utf-8").splitlines()
    start = lines.index("| 文章 | 现在 | 说明 |")
    body = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body]
    return [(article, now) for article, now, _ in rows if now]


def code_in(text):
    return re.findall("`(.+?)`", text)


def is_in(code, source):
    """Returns whether code is in a source but for white space; … stands for anything."""
    pattern = ".*".join(map(re.escape, re.sub(r"\s", "", code).split("…")))
    return re.search(pattern, re.sub(r"\s", "", source), re.DOTALL)


@pytest.mark.parametrize("article, now", statements())
def test_statement_is_where_the_table_says(article, now):
    kind = re.match("相同|改名|移动|改变|删去", now)[0]
    if kind == "删去":
        assert now == kind
        return
    source = re.sub("#.*", "", (ROOT / "lstm.py").read_text(encoding="utf-8"))
    named = code_in(article if kind == "相同" else now)
    assert named
    for code in named:
        assert (ROOT / code).is_file() or is_in(code, source), code
