"""Corpora of one's own: other file names, other languages, characters for words."""

import random
import re

import models
import pytest
from conftest import train

from ptb import dataset, reader
from ptb.language_model import LanguageModel
from ptb.saving import checkpoint
from ptb.terminal.errors import UserError


class OwnConfig(models.TinyConfig):
    """As many words as the corpus has."""

    vocab_size = None
    max_max_epoch = 2


def write(folder, sentences, prefix=""):
    """Writes sentences, lists of words, as the three files of a corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ("train", sentences[:300]), ("valid", sentences[300:350]), ("test", sentences[350:])
    for part, its in parts:
        text = "".join(" ".join(words) + "\n" for words in its)
        (folder / f"{prefix}{part}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def chinese():
    """Sentences as a word segmenter leaves them."""
    rng = random.Random(5)
    who, when = ["我们", "老师", "学生", "他"], ["今天", "昨天", "常常"]
    what = [["学习", "自然", "语言", "处理"], ["读", "这", "本", "书"], ["喝", "茶"]]
    return [
        [rng.choice(who), rng.choice(when), *rng.choice(what), "。"] for _ in range(400)
    ]


@pytest.mark.parametrize("prefix", [pytest.param("", marks=pytest.mark.slow), "ptb."])
def test_chinese_end_to_end(prefix, chinese, tmp_path, capsys):
    """Trained, scored and generated, with the vocabulary the corpus has."""
    corpus = write(tmp_path / "语料", chinese, prefix)
    train(OwnConfig, corpus, tmp_path)
    types = {word for words in chinese[:300] for word in words} | {"<eos>", "<unk>"}
    printed = capsys.readouterr().out
    assert f"{corpus} (own): " in printed and f", {len(types)} types" in printed
    perplexity = float(re.search(r"^Test Perplexity: (\S+)", printed, re.MULTILINE)[1])
    assert 1 < perplexity < len(types)

    model = LanguageModel.load(str(tmp_path / "some"))
    assert {*model.vocabulary} == types
    text = model.generate("我们 今天", words=40)
    words = text.split()
    assert words[:2] == ["我们", "今天"] and {*words} <= types and "\n" in text
    assert len(reader.split_words(text)) == 42
    usual, odd = model.log_prob(["我们 今天 喝 茶 。", "。 茶 茶 今天 我们"])
    assert odd < usual < 0


def test_characters_are_words_too(chinese, tmp_path, capsys):
    """PTB's ptb.char files: characters between spaces, _ for a space."""
    sentences = [list("_".join(f"w{len(word)}" for word in words)) for words in chinese]
    train(OwnConfig, write(tmp_path / "char", sentences), tmp_path)
    model = LanguageModel.load(str(tmp_path / "some"))
    assert {*model.vocabulary} == {"w", "1", "2", "_", "<eos>", "<unk>"}
    assert dict(model.next_words("w 2 _ w", top_k=6)).keys() == {*model.vocabulary}


def test_start_says_what_is_unknown(chinese, tmp_path, capsys):
    """After the lines that say what runs, and before the first epoch."""
    sentences = [*chinese[:300], *([["猫", *words] for words in chinese[300:]])]
    train(OwnConfig, write(tmp_path / "corpus", sentences), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    at = [line.startswith("TensorFlow") for line in lines].index(True)
    assert re.fullmatch(
        r"<unk> is 0\.0% of train, 1\d\.\d% of valid, 1\d\.\d% of test\.", lines[at + 1]
    )
    assert lines[at + 2].startswith("Warning: <unk> is in valid and test but never in train, so")
    assert lines[at + 3] == "Epoch: 1 Learning rate: 1.000"


def test_text_without_line_ends(tmp_path):
    """One endless line has no <eos>: it is unknown, like any other word that is not there."""
    rng = random.Random(2)
    for part in "train", "valid", "test":
        text = " ".join(rng.choice("abcd") for _ in range(500))
        (tmp_path / f"{part}.txt").write_text(text)
    train(OwnConfig, tmp_path, tmp_path)
    model = LanguageModel.load(str(tmp_path / "some"))
    assert sorted(model.vocabulary) == ["<unk>", "a", "b", "c", "d"]
    assert len(model.generate("a b", words=20, no_unk=True).split()) == 22
    (log_prob, count, unknown), = model.score("a nothing b")
    assert (count, unknown) == (4, 2) and log_prob == pytest.approx(model.log_prob("a nothing b"))


def test_which_files_are_the_corpus(tmp_path):
    def names():
        return [path.removeprefix(f"{tmp_path}/") for path in reader.corpus_files(tmp_path)]

    plain, ptb = ["train.txt", "valid.txt", "test.txt"], ["ptb.train.txt", "ptb.valid.txt"]
    assert names() == [*ptb, "ptb.test.txt"]
    (tmp_path / "test.txt").write_text("a\n")
    assert names() == plain
    (tmp_path / "ptb.valid.txt").write_text("a\n")
    assert names() == [*ptb, "ptb.test.txt"]


def test_what_is_missing_is_named(chinese, tmp_path, capsys):
    corpus = write(tmp_path / "corpus", chinese)
    (corpus / "valid.txt").unlink()
    for explicit in True, False:
        assert dataset.find_corpus(str(corpus), explicit) == (str(corpus), "own")
    assert capsys.readouterr().out == ""  # nothing downloaded, nothing said of published figures
    with pytest.raises(UserError, match="corpus/valid.txt: No such file"):
        reader.ptb_raw_data(corpus)


def test_run_of_such_a_corpus_is_told_from_another(chinese, tmp_path):
    corpus = write(tmp_path / "corpus", chinese)
    train(OwnConfig, corpus, tmp_path)
    facts = checkpoint.newest(tmp_path / "some")[0].facts
    assert sorted(facts["corpus"]) == ["test.txt", "train.txt", "valid.txt"]
    assert facts["config"]["vocab_size"] == len(reader.read_vocabulary(corpus))
    (corpus / "test.txt").write_text("我们\n我们\n", encoding="utf-8")
    with pytest.raises(UserError, match="has another run: the test text was another one"):
        train(OwnConfig, corpus, tmp_path)
