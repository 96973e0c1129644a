"""The Chinese README: its table of the article's statements is true, its results the README's."""

import itertools
import re

import pytest
from conftest import ROOT

ENGLISH = ROOT / "README.md"
CHINESE = ROOT / "ptb" / "docs" / "README.zh-CN.md"


def table(header):
    """Returns the rows of the table whose header begins so: lists of cells."""
    lines = CHINESE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    body = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in body]


def code_in(text):
    return re.findall("`(.+?)`", text)


def is_in(code, source):
    """Returns whether code is in a source but for white space; … stands for anything."""
    pattern = ".*".join(map(re.escape, re.sub(r"\s", "", code).split("…")))
    return re.search(pattern, re.sub(r"\s", "", source), re.DOTALL)


STATEMENTS = [(article, now) for article, now, _ in table("| 文章 | 现在 |") if now]


@pytest.mark.parametrize("article, now", STATEMENTS)
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


def test_results_are_those_of_the_readme():
    english = ENGLISH.read_text(encoding="utf-8").replace("\n", " ")
    rows = table("| | 种子 | 训练集 |")
    for what, seed, *perplexities, _ in rows:
        if what.startswith("`") and all(perplexities):
            assert " | ".join(["| " + what, seed, *perplexities]) in english
        assert [number for number in perplexities if number not in english] == []
    assert len(rows) > 5
