"""Long work says how far it is, on a terminal."""

import sys

import models
import pytest

from ptb import evaluate, reader
from ptb.terminal import progress


def work(total, steps=3):
    with progress.Progress("Work", total) as shown:
        for done in range(1, steps + 1):
            shown.update(done)


@pytest.mark.parametrize("total, last", [(3, "100%"), (200, "2%"), (0, "3")])
def test_line_on_a_terminal_goes_at_the_end(total, last, terminal, capsys):
    terminal()
    work(total)
    *updates, end = capsys.readouterr().err.split("\r")[1:]
    assert len(updates) == 3
    assert updates[-1] == f"Work: {last}\033[K"
    assert end == "\033[K"


def test_nothing_in_a_file_and_nothing_for_short_work(terminal, monkeypatch, capsys):
    terminal()
    monkeypatch.setattr(progress, "PATIENCE", 1000)
    work(3)
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    work(3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text, shown", [
    ("123456789012", "123456789"), ("读语料12345", "读语料123"), ("读语料处理", "读语料处"),
    ("é" * 12, "é" * 9),
])
def test_line_is_cut_by_columns(text, shown, terminal, monkeypatch, capsys):
    """Chinese characters take two."""
    terminal()
    monkeypatch.setenv("COLUMNS", "10")
    with progress.Line() as line:
        line.show(text)
    assert f"\r{shown}\033[K\r" in capsys.readouterr().err


def test_updates_keep_their_distance(terminal, monkeypatch, capsys):
    terminal()
    monkeypatch.setattr(progress, "INTERVAL", 1000)
    work(3)
    assert capsys.readouterr().err.count("Work") == 1


def test_reading_and_evaluating_show_it(terminal, corpus, monkeypatch, capsys):
    terminal()
    monkeypatch.setattr(reader, "CHUNK", 1000)
    reader.ptb_raw_data(corpus)
    assert f"\rReading {corpus / 'ptb.train.txt'}: 100%" in capsys.readouterr().err
    with models.built(models.TinyConfig(), [0] * 40) as (session, _, _, model):
        evaluate.text_perplexity(session, model)
    assert "\rEvaluating: 75%" in capsys.readouterr().err


@pytest.mark.parametrize("number, said", [(0, "0 words"), (1, "1 word"), (2000, "2,000 words")])
def test_counted(number, said):
    assert progress.counted(number, "word") == said
