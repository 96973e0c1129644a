"""Reads a corpus: text files -> word ids -> the (x, y) tensors of a training step.

The functions carry the names of the reader of the TensorFlow PTB tutorial. A corpus is a folder
with `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`, or `train.txt`, `valid.txt` and
`test.txt`: UTF-8, words between spaces, one sentence a line.

A word is what lies between spaces, tabs and line ends. Other white space of Unicode, such as the
no-break space, is part of a word, as it is for awk.
"""

import collections
import contextlib
import io
import os
import re
import sys

import numpy as np

from ptb.saving import files
from ptb.terminal import corpus_notes
from ptb.terminal.errors import UserError, shortened
from ptb.terminal.progress import Progress, counted
from ptb.terminal.quiet import tf

EOS = "<eos>"  # the word that a line end is
UNK = "<unk>"  # the word that stands for all that are not in the vocabulary
PARTS = ("train", "valid", "test")
SPACE = " \t\n\r\f\v"
WORD = re.compile(f"[^{SPACE}]+")
BYTE_ORDER_MARK = "\ufeff"
CHUNK = 1 << 20  # characters, or bytes, read at a time: a file need not fit into the memory


def split_words(text):
    """Returns the words of a text as a list; every `\\n` is the word `<eos>`."""
    return WORD.findall(text.replace("\n", f" {EOS} "))


def _read_words(filename):
    """Yields the words of a text file; every line end is the word `<eos>`.

    `\\n`, `\\r\\n` and `\\r` end a line. A last line without a line end gets no `<eos>`.

    Raises:
      UserError: the file cannot be read, is a pipe, or is not UTF-8.
    """
    _refuse_pipe(filename)
    with (
        _readable_text(filename) as without_marks,
        open(filename, encoding="utf-8-sig") as file,
        Progress(f"Reading {filename}", os.fstat(file.fileno()).st_size) as progress,
    ):
        rest = ""  # the beginning of a word whose end is in the next chunk
        while chunk := file.read(CHUNK):
            progress.update(file.buffer.tell())
            chunk = without_marks(chunk)
            words = split_words(rest + chunk)
            rest = words.pop() if words and not chunk.endswith(tuple(SPACE)) else ""
            yield from words
        if rest:
            yield rest


def _refuse_pipe(filename):
    """Raises UserError for what is neither a file nor a folder; a corpus is read more than once."""
    if files.is_stream(filename):
        raise UserError(f"{filename} is no regular file; a corpus is read more than once")


def read_lines(file):
    """Yields a text as lists of lines, each as soon as it has come; a line keeps its `\\n`.

    What a program writes into a pipe, or a person at a terminal, comes line by line; a file comes
    in large lists. Here only `\\n` and `\\r\\n` end a line, so that there are as many as other
    tools count. A `\\r` within a line is the word `<eos>`, as in a corpus.

    Args:
      file: the name of a text file, or 0 for stdin.

    Raises:
      UserError: the file cannot be read, or is not UTF-8.
    """

    def lines_of(data):
        text = without_marks(data.decode("utf-8-sig" if is_first else "utf-8"))
        text = text.replace("\r\n", "\n").replace("\r", f" {EOS} ")
        return [*io.StringIO(text, newline="\n")]

    with (
        _readable_text(file) as without_marks,
        open(file, "rb", closefd=file != 0) as stream,
    ):
        is_first = True
        rest = []  # the parts of a line whose end has not come yet
        while part := stream.read1(CHUNK):
            whole, end, begun = part.rpartition(b"\n")
            if end:
                yield lines_of(b"".join([*rest, whole, end]))
                is_first, rest = False, []
            rest.append(begun)
        if last := lines_of(b"".join(rest)):  # A byte order mark alone is no line.
            yield last


@contextlib.contextmanager
def _readable_text(file):
    """Within it, what is wrong with a text is a UserError that names it.

    Yields a function that takes and returns a part of the text: it leaves out byte order marks,
    which is said at the end.
    """
    name = "stdin" if file == 0 else file
    num_marks = 0

    def without_marks(text):
        nonlocal num_marks
        num_marks += text.count(BYTE_ORDER_MARK)
        return text.replace(BYTE_ORDER_MARK, "")

    try:
        if file != 0 and os.path.isfile(file):
            with open(file, "rb") as stream:  # UTF-16 without accents would pass for UTF-8.
                if corpus_notes.seems_utf16(stream.read(corpus_notes.BEGINNING)):
                    raise UserError(f"{name}: {corpus_notes.what_is_not_utf8(file)}")
        yield without_marks
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {corpus_notes.what_is_not_utf8(file)}") from error
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}; name a text that can be read") from error
    if num_marks:
        print(f"{name}: byte order marks within the text were left out.", file=sys.stderr)


def has_other_space(filename):
    """Returns whether a text has characters that the first release left out or took for a space.

    These are the white space of Unicode beyond SPACE, and byte order marks within the text.
    """
    with open(filename, encoding="utf-8-sig") as file:
        while chunk := file.read(CHUNK):
            if any(each.isspace() and each not in SPACE or each == BYTE_ORDER_MARK
                   for each in {*chunk}):
                return True
    return False


def _build_vocab(filename, vocab_size=None):
    """Returns {word: id}, ids by falling count in the file, then alphabetically.

    With a `vocab_size`, at most that many: the most frequent words and `<unk>`. `<unk>` takes the
    last id where the file has none, or where it is too rare to be kept for its own count.

    Raises:
      UserError: the file cannot be read, is not UTF-8, or holds no word.
    """
    vocabulary = _by_count(_read_words(filename), filename)
    if UNK not in vocabulary[:vocab_size]:
        vocabulary = [word for word in vocabulary if word != UNK]
        vocabulary = vocabulary[: None if vocab_size is None else vocab_size - 1] + [UNK]
    return {word: i for i, word in enumerate(vocabulary[:vocab_size])}


def _by_count(words, filename):
    """Returns the vocabulary of a file: its different words by falling count, then alphabetically.

    Raises UserError where there are none.
    """
    counter = collections.Counter(words)
    _refuse_empty(counter, filename)
    return sorted(counter, key=lambda word: (-counter[word], word))


def _refuse_empty(words, filename):
    """Raises UserError where the words of a file, or their ids, are none."""
    if not len(words):
        raise UserError(f"{filename}: no words in it; give it some lines, one sentence on each")


def word_ids(words, word_to_id, name, line=1):
    """Yields the ids of the words of a text; words not in `word_to_id` are `<unk>`.

    Args:
      words: the words.
      word_to_id: {word: id}.
      name: what a message calls the text.
      line: the number of its first line.

    Raises:
      UserError: a word is not in `word_to_id`, and neither is `<unk>`.
    """
    unknown = word_to_id.get(UNK)
    for word in words:
        word_id = word_to_id.get(word, unknown)
        if word_id is None:
            raise UserError(
                f"{name}, line {line}: '{shortened(word)}' is not in the vocabulary, which has no "
                f"{UNK} either; use words that its corpus has"
            )
        yield word_id
        line += word == EOS


def _file_to_word_ids(filename, word_to_id):
    """Returns the file as an int32 array of ids; words not in `word_to_id` are `<unk>`.

    Raises:
      UserError: the file cannot be read, is not UTF-8, holds no word, or one that has no id.
    """
    ids = np.fromiter(word_ids(_read_words(filename), word_to_id, filename), dtype=np.int32)
    _refuse_empty(ids, filename)
    return ids


def corpus_files(data_path):
    """Returns the paths of train, valid and test in a folder, whether they are there or not.

    They are named `ptb.train.txt` and so on, unless only `train.txt` and its like are there.
    """
    ptb, plain = (
        [os.path.join(data_path, f"{prefix}{part}.txt") for part in PARTS]
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
      UserError: a file is missing, empty, not a regular file or not UTF-8, or has a word that is
        not in a vocabulary without `<unk>`.
    """
    train_path, valid_path, test_path = corpus_files(data_path)
    if vocabulary is None:
        vocabulary = read_vocabulary(data_path, vocab_size)
    word_to_id = {word: i for i, word in enumerate(vocabulary)}
    train_data = _file_to_word_ids(train_path, word_to_id)
    valid_data = _file_to_word_ids(valid_path, word_to_id)
    test_data = _file_to_word_ids(test_path, word_to_id)
    return train_data, valid_data, test_data, len(vocabulary)


def read_vocabulary(data_path, vocab_size=None):
    """Returns the list of the words of a corpus folder, by id; see _build_vocab."""
    return list(_build_vocab(corpus_files(data_path)[0], vocab_size))


def read_tutorials_vocabulary(data_path):
    """Returns the list of the words that the tutorial's reader makes of a corpus folder, by id.

    It puts `<eos>` in place of each line end and then splits at white space of every kind. So
    `<eos>` and a word that stands at a line end without a space are one: `goose<eos>the`. `<unk>`
    is a word like the others.

    Raises:
      UserError: the text cannot be read, is not UTF-8, or holds no word.
    """
    path = corpus_files(data_path)[0]
    _refuse_pipe(path)
    with _readable_text(path), open(path, encoding="utf-8", newline="") as file:
        return _by_count(file.read().replace("\n", EOS).split(), path)


def refuse_short_texts(data_path, raw_data, config):
    """Raises UserError, which names the file, where a text is too short for a configuration.

    Args:
      data_path: the folder of the corpus.
      raw_data: what ptb_raw_data returned for it.
      config: the configuration.
    """
    batch_size, num_steps = config.batch_size, config.num_steps
    *others, test_path = corpus_files(data_path)
    for path, ids in zip(others, raw_data):
        if len(ids) < batch_size * (num_steps + 1):
            problem = _too_few(len(ids), batch_size, num_steps)
            if _is_unseparated(path):
                problem += f"; {corpus_notes.NO_SPACES.format('it')}"
            raise UserError(f"{path}: {problem}")
    refuse_too_short_to_score(test_path, raw_data[2])


def refuse_too_short_to_score(name, words):
    """Raises UserError where a text, its words or their ids, has no word to predict."""
    if len(words) < 2:
        raise UserError(
            f"{name}: {counted(len(words), 'word')}, too few to predict one: use 2 or more"
        )


def _is_unseparated(path):
    """Returns whether most Chinese or Japanese at the beginning of a text has no spaces."""
    with open(path, encoding="utf-8-sig") as file:
        beginning = file.read(corpus_notes.BEGINNING)
    return corpus_notes.are_unseparated([split_words(line) for line in beginning.split("\n")])


def how_it_is_read(data_path, raw_data, vocabulary, vocab_size, model_path=None):
    """Returns what there is to say of how the texts of a corpus are read, as a list of lines.

    Args:
      data_path: the folder of the corpus.
      raw_data: what ptb_raw_data returned for it.
      vocabulary, vocab_size, model_path: see corpus_notes.notes_on.
    """
    paths = corpus_files(data_path)
    texts = [
        corpus_notes.Text(part, path, ids, _is_unseparated(path))
        for part, path, ids in zip(PARTS, paths, raw_data)
    ]
    train_words = _read_words(paths[0])
    return corpus_notes.notes_on(texts, train_words, vocabulary, vocab_size, model_path)


def epoch_steps(epoch_size):
    """Returns a scalar int64 tensor, the number of a step: 0, 1 … epoch_size - 1, over and over.

    Each session.run that uses it gets the next number, from 0 in a new session, except where
    another number is fed in its place.
    """
    steps = tf.data.Dataset.range(epoch_size).repeat()
    return tf.data.make_one_shot_iterator(steps).get_next()


def _too_few(num_words, batch_size, num_steps):
    """Returns that a text is too short for a single step, and what to do."""
    return (
        f"{counted(num_words, 'word')}, too few for batch_size {batch_size} and num_steps "
        f"{num_steps}: use {batch_size * (num_steps + 1):,} or more, or lower these"
    )


def ptb_producer(raw_data, batch_size, num_steps, name=None, step=None):
    """Cuts the ids into `batch_size` equal rows and walks along them, `num_steps` words at a time.

    Args:
      raw_data: the ids, a list or an int32 array; kept outside the graph.
      batch_size: number of rows.
      num_steps: words of each row in one step.
      name: a name for the operations.
      step: a scalar tensor, the number of the step; by default see epoch_steps.

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
        problem = _too_few(len(raw_data), batch_size, num_steps)
        raise UserError(f"{name or 'ptb_producer'}: {problem}")
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
