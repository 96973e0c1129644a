"""The reader: text to ids, ids to batches."""

import collections
import hashlib
import os
import re
import subprocess
import tracemalloc
import types

import numpy as np
import pytest

from ptb import reader
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import tf


@pytest.fixture
def text_file(tmp_path):
    """Writes bytes, or text as UTF-8, to a file and returns its path."""

    def write(content, name="ptb.train.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def words_of(path):
    """Returns the words of a training text as ptb_raw_data reads them, as a list."""
    for part in "valid", "test":
        (path.parent / f"ptb.{part}.txt").write_text("a\n")
    vocabulary = reader.read_vocabulary(path.parent)
    ids, *_ = reader.ptb_raw_data(path.parent, vocabulary=vocabulary)
    return [vocabulary[i] for i in ids]


# Words.

@pytest.mark.parametrize("text, words", [
    (" a b \n c \n", "a b <eos> c <eos>"),  # as PTB has it
    ("a b\nc\n", "a b <eos> c <eos>"),
    ("a b\r\nc\r\n", "a b <eos> c <eos>"),
    ("a\rb\r", "a <eos> b <eos>"),
    ("a b\nc", "a b <eos> c"),
    ("\n\na\n", "<eos> <eos> a <eos>"),
    ("\ufeffa\n", "a <eos>"),
    ("我 喜欢\t自然 语言 \f处理\v\n", "我 喜欢 自然 语言 处理 <eos>"),
])
def test_words(text, words, text_file):
    assert words_of(text_file(text)) == words.split()


@pytest.mark.parametrize("space", ["\u00a0", "\u2028", "\u3000", "\x85", "\x1c"])
def test_other_space_is_part_of_a_word(space, text_file):
    path = text_file(f"10{space}km far{space}\n")
    assert words_of(path) == [f"10{space}km", f"far{space}", "<eos>"]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_byte_order_mark_within_the_text_is_left_out(chunk, monkeypatch, text_file, capsys):
    """As it comes about where files are joined."""
    monkeypatch.setattr(reader, "CHUNK", chunk)
    path = text_file("\ufeffa b\n\ufeffc\n\ufeff")
    assert words_of(path) == "a b <eos> c <eos>".split()
    said = capsys.readouterr().err.splitlines()  # The vocabulary is read first, and then the ids.
    assert said == [f"{path}: byte order marks within the text were left out."] * 2


def test_pipe_is_refused_as_a_corpus(tmp_path, text_file):
    text_file("a b\n")
    os.mkfifo(tmp_path / "ptb.valid.txt")
    text_file("a b\n", "ptb.test.txt")
    with pytest.raises(UserError, match="ptb.valid.txt is no regular file"):
        reader.ptb_raw_data(tmp_path)
    (tmp_path / "ptb.train.txt").unlink()
    os.mkfifo(tmp_path / "ptb.train.txt")
    with pytest.raises(UserError, match="ptb.train.txt is no regular file"):
        reader.read_tutorials_vocabulary(tmp_path)


SIMPLIFIED = "我们 今天 学习 自然 语言 处理 。\n他 昨天 在 图书馆 读 这 本 书 ， 然后 喝茶 。\n"
TRADITIONAL = "我們 今天 學習 自然 語言 處理 。\n他 昨天 在 圖書館 讀 這 本 書 ， 然後 喝茶 。\n"
JAPANESE = "吾輩 は 猫 で ある 。\n名前 は まだ 無い 。\nコンピューター は 便利 だ 。\n"
KOREAN = "우리는 오늘 자연어 처리를 공부합니다 .\n그는 어제 도서관에서 이 책을 읽었다 .\n"


@pytest.mark.parametrize("text, encoding, guess", [
    ("我 喜欢\n", "GB18030", "but seems to be GB18030, or else EUC-JP"),
    (SIMPLIFIED, "GB2312", "but seems to be GB18030"),
    (SIMPLIFIED.replace(" ", ""), "GBK", "but seems to be GB18030"),
    (TRADITIONAL, "Big5", "but seems to be Big5"),
    (TRADITIONAL.replace(" ", ""), "Big5", "but seems to be Big5"),
    (TRADITIONAL, "GBK", "but seems to be GB18030"),
    (JAPANESE, "Shift-JIS", "but seems to be Shift-JIS"),
    (JAPANESE.replace(" ", ""), "Shift-JIS", "but seems to be Shift-JIS"),
    (JAPANESE, "EUC-JP", "but seems to be EUC-JP"),
    (KOREAN, "EUC-KR", "but seems to be EUC-KR, or else GB18030"),
    (SIMPLIFIED, "UTF-16", "but UTF-16"),
    (SIMPLIFIED, "UTF-16LE", "but seems to be UTF-16LE"),
    ("一 二\n一 三\n" * 9, "UTF-16BE", "but seems to be UTF-16BE"),
    ("caf\xe9\n", "ISO-8859-1", "but seems to be WINDOWS-1252, if it is of Western Europe"),
    ("“Où est l’été ?”\n", "WINDOWS-1252", "but seems to be WINDOWS-1252, if it is of Western Eu"),
])
def test_command_that_converts_a_text_is_given(text, encoding, guess, text_file):
    """The encoding is the one in which the text is plausible, or the likelier one of two."""
    path = text_file(text.encode(encoding))
    with pytest.raises(UserError) as error:
        reader.ptb_raw_data(path.parent)
    assert f"line 1 is not UTF-8, {guess}" in str(error.value)
    command = re.search(r"convert it first: (iconv .*)", str(error.value))[1]
    subprocess.run(command, shell=True, check=True, cwd=path.parent)
    assert (path.parent / "converted.txt").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("encoding, guess", [
    ("UTF-16LE", "it is not UTF-8, but seems to be UTF-16LE"),
    ("UTF-16BE", "it is not UTF-8, but seems to be UTF-16BE"),
    ("UTF-32", "line 1 is not UTF-8, but UTF-32"),
])
def test_wide_ascii_is_refused_although_it_could_be_read(encoding, guess, tmp_path):
    path = tmp_path / "it's.txt"
    path.write_bytes("the cat sat\n".encode(encoding))
    with pytest.raises(UserError) as error:
        [*reader.read_lines(str(path))]
    assert guess in str(error.value)
    command = re.search(r"convert it first: (iconv .*)", str(error.value))[1]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "converted.txt").read_text(encoding="utf-8") == "the cat sat\n"


@pytest.mark.parametrize("number", [1, 4, 6])
def test_line_that_is_unlike_the_others_is_not_a_reason_to_convert_them(number, text_file):
    lines = ["l’été\n".encode()] * 5
    lines.insert(number - 1, "café\n".encode("ISO-8859-1"))
    path = text_file(b"".join(lines))
    with pytest.raises(UserError) as error:
        reader.ptb_raw_data(path.parent)
    assert str(error.value) == (
        f"{path}: line {number} is not UTF-8, unlike most others; mend it, or take it out"
    )


@pytest.mark.parametrize("text", ["Сегодня хорошая погода\n".encode("KOI8-R"), b"\xff\xfd\xff\n"])
def test_encoding_that_is_not_known_is_not_guessed(text, text_file):
    with pytest.raises(UserError, match="its encoding is not known here .* iconv -f ENCODING -t"):
        reader.ptb_raw_data(text_file(text).parent)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 1000])
def test_words_do_not_depend_on_how_the_file_is_read(chunk, monkeypatch, text_file):
    monkeypatch.setattr(reader, "CHUNK", chunk)
    path = text_file("één twee\r\ndrie  \r\n\nvier\r\nvijf")
    expected = "één twee <eos> drie <eos> <eos> vier <eos> vijf"
    assert words_of(path) == expected.split()


def test_memory_does_not_grow_with_the_file(text_file, monkeypatch):
    monkeypatch.setattr(reader, "CHUNK", 1000)
    path = text_file("a b\n" * 50_000)
    tracemalloc.start()
    reader.read_vocabulary(path.parent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000  # The text has 200,000 bytes.


# Vocabulary and ids.

def test_vocabulary_goes_by_falling_count_then_alphabet(text_file):
    path = text_file("b b b a <unk> c a\nc c\n")
    vocabulary = ["b", "c", "<eos>", "a", "<unk>"]
    for vocab_size in None, 5, 100:
        assert reader.read_vocabulary(path.parent, vocab_size) == vocabulary
    for part in "valid", "test":
        text_file("c x\n", f"ptb.{part}.txt")
    train, valid, test, num_words = reader.ptb_raw_data(path.parent)
    assert train.tolist() == [0, 0, 0, 3, 4, 1, 3, 2, 1, 1, 2] and num_words == 5
    assert valid.tolist() == test.tolist() == [1, 4, 2]


@pytest.mark.parametrize("text, vocab_size, kept", [
    ("a a a b b c", None, "a b c <unk>"),  # <unk> joins last
    ("a a a b b c", 10, "a b c <unk>"),
    ("a a a b b c", 4, "a b c <unk>"),
    ("a a a b b c", 3, "a b <unk>"),  # inside vocab_size
    ("a a a b b c", 1, "<unk>"),
    ("a a a <unk> <unk> b c", 3, "a <unk> b"),  # in its own place where train has it
    ("a a a <unk> <unk> b c", 2, "a <unk>"),
    ("a a a b b <unk>", 2, "a <unk>"),  # kept even where its own count is too low
])
def test_vocabulary_of_limited_size(text, vocab_size, kept, text_file):
    assert reader.read_vocabulary(text_file(text).parent, vocab_size) == kept.split()


def test_vocabulary_without_unk_names_the_first_word_that_it_has_not(text_file):
    path = text_file("a b\na c a\n")
    for part in "valid", "test":
        text_file("b\n", f"ptb.{part}.txt")
    vocabulary = ["a", "<eos>", "b", "c"]
    train, *_ = reader.ptb_raw_data(path.parent, vocabulary=vocabulary)
    assert train.tolist() == [0, 2, 1, 0, 3, 0, 1]
    with pytest.raises(UserError, match="train.txt, line 2: 'c' is not in the vocabulary, which "):
        reader.ptb_raw_data(path.parent, vocabulary=vocabulary[:3])


@pytest.mark.parametrize("text, words", [
    (" a b \n a \n", "<eos> a b"),  # as PTB has it
    ("the goose\n a goose\n goose \n", "goose<eos> <eos> a goose the"),
    ("the goose\nthe goose", "goose goose<eos>the the"),
    (" b \n\n b\r\n \r\n", "<eos> b <eos><eos>"),
    ("a\u3000b\xa0a c <unk>", "a <unk> b c"),
    ("\ufeffa a \n", "<eos> a \ufeffa"),
])
def test_tutorials_vocabulary_is_that_of_its_reader(text, words, text_file):
    """Where no space is beside a line end, `<eos>` is a part of the word there."""
    path = text_file(text)
    found = reader.read_tutorials_vocabulary(path.parent)
    assert found == words.split(" ")
    counts = collections.Counter(path.read_bytes().decode().replace("\n", "<eos>").split())
    assert found == [word for word, _ in sorted(counts.items(), key=lambda x: (-x[1], x[0]))]


def test_raw_data(text_file):
    train = text_file("the cat sat\nthe cat\n")
    text_file("the dog sat\n", "ptb.valid.txt")
    text_file("a cat\r\n", "ptb.test.txt")
    *parts, vocabulary = reader.ptb_raw_data(train.parent)
    # <eos> 0, cat 1, the 2, sat 3, <unk> 4
    assert [part.tolist() for part in parts] == [[2, 1, 3, 0, 2, 1, 0], [2, 4, 3, 0], [4, 1, 0]]
    assert all(part.dtype == np.int32 for part in parts)
    assert vocabulary == 5
    *parts, vocabulary = reader.ptb_raw_data(train.parent, vocab_size=3)
    # <eos> 0, cat 1, <unk> 2
    assert [part.tolist() for part in parts] == [[2, 1, 2, 0, 2, 1, 0], [2, 2, 2, 0], [2, 1, 0]]
    assert vocabulary == 3


def test_ptb_ids_are_the_tutorials(shared):
    """The tutorial's own reading in three lines; and the reference's counts."""
    folder = shared / "simple-examples" / "data"
    *parts, vocabulary = reader.ptb_raw_data(folder, vocab_size=10000)
    assert [len(part) for part in parts] == [929589, 73760, 82430]
    assert vocabulary == 10000
    texts = [(folder / f"ptb.{part}.txt").read_text() for part in ("train", "valid", "test")]
    words = [text.replace("\n", "<eos>").split() for text in texts]
    types, counts = np.unique(words[0], return_counts=True)
    ids = {word: i for i, word in enumerate(types[np.argsort(-counts, kind="stable")])}
    for part, expected in zip(parts, words):
        assert part.tolist() == [ids[word] for word in expected]
    digest = hashlib.sha256((folder / "ptb.train.txt").read_bytes()).hexdigest()
    assert digest == "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"


# Files that cannot be used.

def test_missing_files_are_named(tmp_path, text_file):
    with pytest.raises(UserError, match="ptb.train.txt: No such file or directory"):
        reader.ptb_raw_data(tmp_path)
    text_file("a b\n")
    with pytest.raises(UserError, match="ptb.valid.txt: No such file or directory"):
        reader.ptb_raw_data(tmp_path)
    (tmp_path / "ptb.valid.txt").mkdir()
    with pytest.raises(UserError, match="ptb.valid.txt: Is a directory"):
        reader.ptb_raw_data(tmp_path)


@pytest.mark.parametrize("content", ["", "  \t "])
def test_empty_files_are_named(content, text_file):
    text_file(content)
    with pytest.raises(UserError, match="ptb.train.txt: no words in it"):
        reader.ptb_raw_data(text_file(content).parent)
    text_file("a b\n")
    with pytest.raises(UserError, match="ptb.valid.txt: no words in it"):
        reader.ptb_raw_data(text_file(content, "ptb.valid.txt").parent)


def test_text_that_is_not_utf8_is_named_with_its_line(text_file):
    path = text_file(b"a b\n" * reader.CHUNK + b"caf\xe9\n")
    with pytest.raises(UserError, match=f"ptb.train.txt: line {reader.CHUNK + 1} is not UTF-8"):
        reader.read_vocabulary(path.parent)


@pytest.mark.parametrize("content", [b"a\nb \xe4\xb8", "a\nb\n".encode("utf-16")])
def test_text_cut_short_or_in_utf16(content, text_file):
    line = 2 if content.startswith(b"a") else 1
    with pytest.raises(UserError, match=f"ptb.train.txt: line {line} is not UTF-8"):
        reader.read_vocabulary(text_file(content).parent)


# Batches.

EXAMPLE = [4, 3, 2, 1, 0, 5, 6, 1, 1, 1, 1, 0, 3, 4, 1]
STEPS = [
    ([[4, 3], [5, 6], [1, 0]], [[3, 2], [6, 1], [0, 3]]),
    ([[2, 1], [1, 1], [3, 4]], [[1, 0], [1, 1], [4, 1]]),
]


@pytest.mark.parametrize("queue_runners", [True, False])
def test_producer_walks_along_the_rows_and_round_again(queue_runners):
    with tf.Graph().as_default():
        x, y = reader.ptb_producer(EXAMPLE, 3, 2)
        assert x.shape == y.shape == [3, 2]
        assert x.dtype == y.dtype == tf.int32
        with tf.Session() as session:
            if queue_runners:
                coord = tf.train.Coordinator()
                tf.train.start_queue_runners(session, coord)
            for expected_x, expected_y in STEPS * 2:
                got_x, got_y = session.run([x, y])
                assert (got_x.tolist(), got_y.tolist()) == (expected_x, expected_y)
            if queue_runners:
                coord.request_stop()
                coord.join()
        with tf.Session() as session:  # a new session starts at step 0
            assert session.run(x).tolist() == STEPS[0][0]


def test_producer_goes_where_it_is_told():
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.placeholder(tf.int64, [])
        x, y = reader.ptb_producer(np.array(EXAMPLE, np.int32), 3, 2, name="Some", step=step)
        for i in (1, 0, 0, 1):
            got_x, got_y = session.run([x, y], {step: i})
            assert (got_x.tolist(), got_y.tolist()) == STEPS[i]


def test_words_beyond_the_last_whole_step_are_left_out():
    with tf.Graph().as_default(), tf.Session() as session:
        x, _ = reader.ptb_producer(range(12), 1, 4)  # two steps; 8, 9, 10 and 11 are too few
        assert [session.run(x).tolist() for _ in range(3)] == [[[0, 1, 2, 3]], [[4, 5, 6, 7]],
                                                               [[0, 1, 2, 3]]]


@pytest.mark.parametrize("words", [0, 1, 8])
def test_too_short_a_text_is_named(words):
    counted = "1 word" if words == 1 else f"{words} words"
    with tf.Graph().as_default():
        reader.ptb_producer([0] * 9, 3, 2)
        with pytest.raises(UserError, match=f"TestInput: {counted}, too few for batch_.* use 9 or"):
            reader.ptb_producer([0] * words, 3, 2, name="TestInput")


@pytest.mark.parametrize("text, cause", [
    ("a b\n" * 2, ""), ("我们 学习\n" * 2, ""), ("abcdefgh\n" * 3, ""),
    ("我们今天学习自然语言处理。\n" * 3, "train.txt: 6 words, .*; there are no spaces between"),
    ("学习\n" * 3, "; there are no spaces between the words of it; put them in"),
])
def test_file_that_is_too_short_is_named(text, cause, text_file):
    """And what is not cut into words has too few of them for that reason."""
    long = "a b\n" * 9
    for short in "train", "valid":
        folder = text_file(text if short == "train" else long).parent
        text_file(text if short == "valid" else long, "ptb.valid.txt")
        text_file("a b\n", "ptb.test.txt")
        config = types.SimpleNamespace(batch_size=3, num_steps=2)
        raw_data = reader.ptb_raw_data(folder)
        with pytest.raises(UserError, match=f"ptb.{short}.txt: 6 words, too few for .*") as error:
            reader.refuse_short_texts(folder, raw_data, config)
        assert re.search(cause.replace("train.txt", f"ptb.{short}.txt"), str(error.value))
        assert ("no spaces" in str(error.value)) == bool(cause)
        config.num_steps = 1
        reader.refuse_short_texts(folder, raw_data, config)


def test_corpus_is_not_in_the_graph():
    def size(words):
        with tf.Graph().as_default() as graph:
            reader.ptb_producer(np.zeros(words, np.int32), 3, 2)
            return graph.as_graph_def().ByteSize()

    assert size(1_000_000) < size(1000) + 100


# What is said of how the texts are read.

def how_it_is_read(text_file, train, valid, test, vocab_size=None):
    """Returns what is said of a corpus of three texts."""
    folder = text_file(train).parent
    text_file(valid, "ptb.valid.txt")
    text_file(test, "ptb.test.txt")
    vocabulary = reader.read_vocabulary(folder, vocab_size)
    raw_data = reader.ptb_raw_data(folder, vocabulary=vocabulary)
    return reader.how_it_is_read(folder, raw_data, vocabulary, vocab_size or len(vocabulary))


def test_nothing_is_said_of_a_text_without_unknown_words(text_file):
    assert how_it_is_read(text_file, "a b\n\n" * 9, "a\n", "b\n") == []


def test_share_of_unknown_words(text_file):
    said = how_it_is_read(text_file, "a <unk> b\n" * 9, "a a a a a c\n", "a b\n")
    assert said == ["<unk> is 25.0% of train, 14.3% of valid, 0.0% of test."]


@pytest.mark.parametrize("valid, test, many", [
    ("a a a c\n", "a b\n", None),  # 20% is not over 20%
    ("a a c\n", "a b\n", "valid"), ("a b\n", "c\n", "test"), ("c\n", "c d\n", "valid and test"),
])
def test_texts_that_are_mostly_unknown_get_a_warning(valid, test, many, text_file):
    said = how_it_is_read(text_file, "a <unk> b\n" * 9, valid, test)
    assert len(said) == (2 if many else 1)
    if many:
        assert said[1] == (
            f"Warning: over 20% of {many} is <unk>, so the perplexity says little: train never has "
            "these words; train on more text, or on text of this kind."
        )


def test_text_that_vocab_size_cuts_gets_a_warning(text_file):
    said = how_it_is_read(text_file, "a a a b b c c d\n" * 9, "a c d\n", "a a a a\n", vocab_size=3)
    assert said == [
        "<unk> is 44.4% of train, 75.0% of valid, 20.0% of test.",
        "Warning: over 20% of valid is <unk>, so the perplexity says little: vocab_size keeps 3 "
        "words of train; raise it in configs.py, or set it to None to keep all.",
    ]


def test_small_text_gets_a_warning(text_file):
    """Its words are separated and nothing is cut: the advice is another one."""
    _, warning = how_it_is_read(text_file, "a b\n" * 9, "a c d\n", "a e\n", vocab_size=10000)
    assert "20% of valid and test is <unk>, so the perplexity says little: train never " in warning
    assert "with vocab_size below 4 the rarest words of train become <unk>; vocab_size " in warning
    assert warning.endswith("even None is better, as the model then has no more than these.")
    assert "raise" not in warning and "spaces" not in warning


def test_words_that_another_model_does_not_know_get_a_warning(text_file):
    folder = text_file("a b c d\n" * 9).parent
    text_file("a c d\n", "ptb.valid.txt")
    text_file("a a a a a c\n", "ptb.test.txt")
    vocabulary = ["<eos>", "a", "b", "<unk>"]
    raw_data = reader.ptb_raw_data(folder, vocabulary=vocabulary)
    _, warning = reader.how_it_is_read(folder, raw_data, vocabulary, 4, "Out/small")
    assert warning == (
        "Warning: over 20% of valid is <unk>, so the perplexity says little: Out/small does not "
        "know these words; start from a model of texts like these."
    )
    del vocabulary[2]
    folder = text_file("a\n" * 9).parent  # That model may have learned of <unk> before.
    text_file("a a a a a b\n", "ptb.valid.txt")
    raw_data = reader.ptb_raw_data(folder, vocabulary=vocabulary)
    (shares,) = reader.how_it_is_read(folder, raw_data, vocabulary, 3, "Out/small")
    assert shares.startswith("<unk> is 0.0% of train, 14.3% of valid")


@pytest.mark.parametrize("valid, test, untrained", [
    ("a a a a a c\n", "a b\n", "valid"), ("a b\n", "a a a a a c\n", "test"),
])
def test_unknown_words_that_train_never_has_get_a_warning(valid, test, untrained, text_file):
    _, warning = how_it_is_read(text_file, "a b\n" * 9, valid, test)
    assert warning.startswith(f"Warning: <unk> is in {untrained} but never in train, so nothing ")
    assert "with vocab_size below 4 the rarest words of train become <unk>" in warning
    _, *others = how_it_is_read(text_file, "a b\n" * 9, valid, test, vocab_size=3)
    assert not any("never in train" in line for line in others)  # The advice helps.


@pytest.mark.parametrize("line", [
    "我们学习自然语言处理", "彼は昨日この本を読みました", "床前明月光", "喝茶", "　　我们今天",
    "他说： 我们今天学习语言。",
])
def test_text_that_is_not_cut_into_words_gets_one_warning(line, text_file):
    """In most lines; a heading, or a long name, is nothing."""
    lines = [f"{line}{number}\n" for number in range(30)]
    train, valid = "".join(lines[:20]), "".join(lines[20:])
    said = [line for line in how_it_is_read(text_file, train, valid, "a b\n") if "Warn" in line]
    folder = text_file(train).parent
    assert said == [
        f"Warning: there are no spaces between the words of {folder}/ptb.train.txt, "
        f"{folder}/ptb.valid.txt; put them in, as a segmenter does."
    ]
    # Here spaces stand between phrases.
    phrases = "わたしは きょう がっこうへ いきました。\n" * 9
    assert how_it_is_read(text_file, phrases, phrases, phrases) == []
    rest = "我们 今天 学习 中华人民共和国 的 历史 。\n" * 3 + "我 们 喝 茶\n" + "目录\nword a\n"
    said = how_it_is_read(text_file, rest, rest, rest)
    assert not any("spaces" in line for line in said)


@pytest.mark.parametrize("text, signs, share", [
    ("　　 我们 学习\n", "U+3000", "25.0%"), ("　我们 学习\n", "U+3000", "33.3%"),
    ("\xa0 \u200b a\n", "U+00A0, U+200B", "50.0%"),
])
def test_white_space_that_is_a_word_gets_one_line(text, signs, share, text_file):
    """It is frequent and easy to predict."""
    (said,) = how_it_is_read(text_file, text * 9, text, text)
    assert said == (
        f"White space that separates nothing ({signs}) is, or is in, {share} of the words of train,"
        " and the perplexity looks better for it; put plain spaces in its place."
    )
    assert how_it_is_read(text_file, "10\xa0km\n" * 9, "10\xa0km\n", "10\xa0km\n") == []


@pytest.mark.parametrize("text, marks", [
    ("<s> a </s>\n", "</s>, <s>"), ("a <UNK> b\n", "<UNK>"), ("<BOS> a <EOS>\n", "<BOS>, <EOS>"),
])
def test_marks_of_other_tools_get_one_line(text, marks, text_file):
    said, = how_it_is_read(text_file, text * 3, text, text)
    assert said == (
        f"Words like any other: {marks}. Only the end of a line is read as <eos>, and only <unk> "
        "stands for words outside the vocabulary."
    )


def test_written_line_ends_get_one_line(text_file):
    """Not a blank line, nor <eos> in a line or a word, nor at the end without a line end."""
    train = "a <eos>\nb <eos> \r\n\na <eos> b\nb<eos>\n\n"
    said = how_it_is_read(text_file, train, "a\n\n", "a <eos>")
    assert said == [
        "The <eos> written at the end of 2 lines is read as a word, and the line end as another; "
        "leave it out of the texts."
    ]
    said, = how_it_is_read(text_file, "<s> a <eos>\n", "a\n", "a\n")
    assert "<s>. Only" in said and "end of 1 line is read" in said


# Lines.

@pytest.mark.parametrize("text, lines", [
    ("a b\n\nc", ["a b\n", "\n", "c"]),
    ("a\r\n\r\nb\r\n", ["a\n", "\n", "b\n"]),
    ("a\x0cb\x0bc\u2028d\x85e\n", ["a\x0cb\x0bc\u2028d\x85e\n"]),
    ("a\rb\n", ["a <eos> b\n"]),
    ("\ufeffa\nb\ufeff\n", ["a\n", "b\n"]),
    ("\n", ["\n"]), ("", []), ("a\n  ", ["a\n", "  "]),
])
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_lines_are_those_that_other_tools_count(chunk, text, lines, text_file, monkeypatch):
    monkeypatch.setattr(reader, "CHUNK", chunk)
    path = text_file(text.encode("utf-8"))
    found = [line for piece in reader.read_lines(path) for line in piece]
    assert found == lines
    words = [word for line in found for word in reader.split_words(line)]
    assert not words or words == words_of(path)  # as training reads them
