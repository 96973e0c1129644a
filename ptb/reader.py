"""Reads a corpus: text files -> word ids -> the (x, y) tensors of a training step.

The functions carry the names of the reader of the TensorFlow PTB tutorial. A corpus is a folder
with `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`, or `train.txt`, `valid.txt` and
`test.txt`: UTF-8, words between spaces, one sentence a line.

A word is what lies between spaces, tabs and line ends. Other white space of Unicode, such as the
no-break space, is part of a word, as it is for `wc` and most tools that count words.
"""

import collections
import itertools
import os
import re
import sys

import numpy as np

from ptb.errors import UserError
from ptb.progress import Progress
from ptb.quiet import tf

EOS = "<eos>"
UNK = "<unk>"
CHUNK = 1 << 20  # characters read at a time, so that the memory does not grow with the file
SPACE = " \t\n\r\f\v"
WORD = re.compile(f"[^{SPACE}]+")
BYTE_ORDER_MARK = "\ufeff"


def split_words(text):
    """Returns the words of a text as a list; every `\\n` is the word `<eos>`."""
    return WORD.findall(text.replace("\n", f" {EOS} "))


def read_text(file):
    """Returns the words of a text as a list; every line end is the word `<eos>`.

    Args:
      file: the name of a text file, or the number of an open file descriptor.

    Raises:
      UserError: the file cannot be read, or is not UTF-8.
    """
    return list(_read_words(file))


def _read_words(filename):
    """Yields the words of a text file; every line end is the word `<eos>`.

    `\\n`, `\\r\\n` and `\\r` end a line. A last line without a line end gets no `<eos>`.

    Raises:
      UserError: the file cannot be read, or is not UTF-8.
    """
    return itertools.chain.from_iterable(_read_chunks(filename))


def _read_chunks(filename):
    """Yields the words of a text file as lists, one for each CHUNK of text."""
    name = "stdin" if filename == 0 else filename
    has_marks = False
    try:
        with (
            open(filename, encoding="utf-8-sig", closefd=filename != 0) as file,
            Progress(f"Reading {name}", os.fstat(file.fileno()).st_size) as progress,
        ):
            rest = ""  # the beginning of a word whose end is in the next chunk
            while chunk := file.read(CHUNK):
                progress.update(file.buffer.tell() if file.seekable() else 0)
                if BYTE_ORDER_MARK in chunk:
                    has_marks = True
                    chunk = chunk.replace(BYTE_ORDER_MARK, "")
                words = split_words(rest + chunk)
                rest = words.pop() if words and not chunk.endswith(tuple(SPACE)) else ""
                yield words
            if rest:
                yield [rest]
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {_what_is_not_utf8(filename)}") from error
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}; it must be a readable text") from error
    if has_marks:
        print(f"{name}: byte order marks within the text were left out.", file=sys.stderr)


def has_other_space(filename):
    """Returns whether a text has signs that the first release left out or took for a space.

    These are the white space of Unicode beyond SPACE, and byte order marks within the text.
    """
    with open(filename, encoding="utf-8-sig") as file:
        while chunk := file.read(CHUNK):
            if any(sign.isspace() and sign not in SPACE or sign == BYTE_ORDER_MARK
                   for sign in {*chunk}):
                return True
    return False


def _what_is_not_utf8(filename):
    """Returns which line of a file is the first that is not UTF-8, and what converts the file."""
    convert = f"convert it first: iconv -f {{}} -t UTF-8 '{filename}' > converted.txt"
    if filename == 0 or not os.path.isfile(filename):
        return "it is not UTF-8; convert it first"  # It cannot be read again to say more.
    with open(filename, "rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "line 1 is not UTF-8; " + convert.format("UTF-16")
        file.seek(0)
        lines = enumerate(file, start=1)
        number, line = next(pair for pair in lines if not _decodes(pair[1], "utf-8"))
    encoding = "GB18030" if _decodes(line, "gb18030") else "ISO-8859-1"
    return f"line {number} is not UTF-8; {convert.format(encoding)}"


def _decodes(text, encoding):
    """Returns whether bytes are text in an encoding."""
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _build_vocab(filename, vocab_size=None, add_unk=True):
    """Returns {word: id}, ids by falling count in the file, then alphabetically.

    With a `vocab_size`, at most that many: the most frequent words and `<unk>`. `<unk>` takes the
    last id where the file has none, or where it is too rare to be kept for its own count. Without
    `add_unk`, as in the tutorial, it is a word like the others.

    Raises:
      UserError: the file cannot be read, is not UTF-8, or holds no word.
    """
    counter = collections.Counter(_read_words(filename))
    if not counter:
        raise UserError(f"{filename}: no words in it; give it some lines, one sentence on each")
    words = sorted(counter, key=lambda word: (-counter[word], word))
    if add_unk and UNK not in words[:vocab_size]:
        words = [word for word in words if word != UNK]
        words = words[: None if vocab_size is None else vocab_size - 1] + [UNK]
    return {word: i for i, word in enumerate(words[:vocab_size])}


def word_ids(words, word_to_id, name):
    """Yields the ids of the words of a text; words not in `word_to_id` are `<unk>`.

    Raises:
      UserError: a word is not in it, and neither is `<unk>`; the message begins with the name of
        the text and the line.
    """
    unknown = word_to_id.get(UNK)
    line = 1
    for word in words:
        word_id = word_to_id.get(word, unknown)
        if word_id is None:
            raise UserError(
                f"{name}, line {line}: '{word}' is not in the vocabulary, which has no {UNK} either"
            )
        yield word_id
        line += word == EOS


def _file_to_word_ids(filename, word_to_id):
    """Returns the file as an int32 array of ids; words not in `word_to_id` are `<unk>`.

    Raises:
      UserError: the file cannot be read, is not UTF-8, holds no word, or one that has no id.
    """
    ids = np.fromiter(word_ids(_read_words(filename), word_to_id, filename), dtype=np.int32)
    if not ids.size:
        raise UserError(f"{filename}: no words in it; give it some lines, one sentence on each")
    return ids


def _refuse_pipes(paths):
    """Raises UserError for what is neither a file nor a folder; a corpus is read more than once."""
    for path in paths:
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            raise UserError(f"{path} is no regular file; a corpus is read more than once")


def corpus_files(data_path):
    """Returns the paths of train, valid and test in a folder, whether they are there or not.

    They are named `ptb.train.txt` and so on, unless only `train.txt` and its like are there.
    """
    ptb, plain = (
        [os.path.join(data_path, f"{prefix}{part}.txt") for part in ("train", "valid", "test")]
        for prefix in ("ptb.", "")
    )
    only_plain = any(map(os.path.exists, plain)) and not any(map(os.path.exists, ptb))
    return plain if only_plain else ptb


def ptb_raw_data(data_path, vocab_size=None, vocabulary=None):
    """Reads the three texts in the folder `data_path`.

    Args:
      data_path: the folder; see corpus_files for the names in it.
      vocab_size: keep the most frequent words, at most this many; None keeps all.
      vocabulary: the words by id, where they are known; vocab_size then says nothing.

    Returns:
      (train_data, valid_data, test_data, vocabulary size): three int32 arrays of word ids, and the
      number of different ids, `<unk>` included.

    Raises:
      UserError: a file is missing, empty or not UTF-8.
    """
    train_path, valid_path, test_path = corpus_files(data_path)
    _refuse_pipes([train_path, valid_path, test_path])
    if vocabulary is None:
        vocabulary = read_vocabulary(data_path, vocab_size)
    word_to_id = {word: i for i, word in enumerate(vocabulary)}
    train_data = _file_to_word_ids(train_path, word_to_id)
    valid_data = _file_to_word_ids(valid_path, word_to_id)
    test_data = _file_to_word_ids(test_path, word_to_id)
    return train_data, valid_data, test_data, len(vocabulary)


def read_vocabulary(data_path, vocab_size=None, add_unk=True):
    """Returns the list of the words of a corpus folder, by id; see _build_vocab."""
    train_path = corpus_files(data_path)[0]
    _refuse_pipes([train_path])
    return list(_build_vocab(train_path, vocab_size, add_unk))


def epoch_steps(epoch_size):
    """Returns a scalar int64 tensor: 0, 1 … epoch_size - 1, over and over, one each session.run.

    Who feeds it decides the position instead.
    """
    steps = tf.data.Dataset.range(epoch_size).repeat()
    return tf.data.make_one_shot_iterator(steps).get_next()


def ptb_producer(raw_data, batch_size, num_steps, name=None, step=None):
    """Cuts the ids into `batch_size` equal rows and walks along them, `num_steps` words at a time.

    Args:
      raw_data: the ids, a list or an int32 array; kept outside the graph.
      batch_size: number of rows.
      num_steps: words of each row in one step.
      name: a name for the operations.
      step: a scalar tensor, the position; by default the next one each time, and round again.

    Returns:
      (x, y): int32 tensors of shape [batch_size, num_steps]. In step i, x is columns
      [i * num_steps, (i + 1) * num_steps) of the rows, and y is one column to the right. Both come
      from one operation, so they belong together; no queue is involved.

    Raises:
      UserError: the text is too short for a single step.
    """
    raw_data = np.asarray(raw_data, dtype=np.int32)
    batch_len = len(raw_data) // batch_size
    epoch_size = (batch_len - 1) // num_steps
    if epoch_size < 1:
        raise UserError(
            f"{name or 'ptb_producer'}: {len(raw_data)} words are too few for batch_size "
            f"{batch_size} and num_steps {num_steps}: use {batch_size * (num_steps + 1)} or more, "
            "or lower these"
        )
    rows = raw_data[: batch_size * batch_len].reshape(batch_size, batch_len)

    def batch(step):
        start = step * num_steps
        return rows[:, start : start + num_steps], rows[:, start + 1 : start + num_steps + 1]

    with tf.name_scope(name, "PTBProducer"):
        if step is None:
            step = epoch_steps(epoch_size)
        # The ids stay in this NumPy array, because a constant would be part of every saved graph.
        x, y = tf.numpy_function(batch, [step], [tf.int32, tf.int32])
        x.set_shape([batch_size, num_steps])
        y.set_shape([batch_size, num_steps])
        return x, y
