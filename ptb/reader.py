"""Reads a corpus: text files -> word ids -> the (x, y) tensors of a training step.

The functions carry the names of the reader of the TensorFlow PTB tutorial. A corpus is a folder
with `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`, or `train.txt`, `valid.txt` and
`test.txt`: UTF-8, words between spaces, one sentence a line.

A word is what lies between spaces, tabs and line ends. Other white space of Unicode, such as the
no-break space, is part of a word, as it is for `wc` and most tools that count words.
"""

import collections
import contextlib
import io
import itertools
import os
import re
import sys

import numpy as np

from ptb import files
from ptb.errors import UserError
from ptb.progress import Progress
from ptb.quiet import tf

EOS = "<eos>"
UNK = "<unk>"
CHUNK = 1 << 20  # characters read at a time, so that the memory does not grow with the file
SPACE = " \t\n\r\f\v"
WORD = re.compile(f"[^{SPACE}]+")
BYTE_ORDER_MARK = "\ufeff"
PARTS = ("train", "valid", "test")
MANY = 0.2  # more <unk> than this share of a text is worth a warning
MARKS = {  # what other tools write for line ends and unknown words, in lower case
    "<s>", "</s>", "<bos>", "<sos>", "<eos>", "<unk>", "<unknown>", "<oov>", "[unk]"
}


def split_words(text):
    """Returns the words of a text as a list; every `\\n` is the word `<eos>`."""
    return WORD.findall(text.replace("\n", f" {EOS} "))


def _read_words(filename):
    """Yields the words of a text file; every line end is the word `<eos>`.

    `\\n`, `\\r\\n` and `\\r` end a line. A last line without a line end gets no `<eos>`.

    Raises:
      UserError: the file cannot be read, or is not UTF-8.
    """
    return itertools.chain.from_iterable(_read_chunks(filename))


def _read_chunks(filename):
    """Yields the words of a text file as lists, one for each CHUNK of text."""
    with (
        _readable_text(filename) as without_marks,
        open(filename, encoding="utf-8-sig", closefd=filename != 0) as file,
        Progress(f"Reading {_shown(filename)}", os.fstat(file.fileno()).st_size) as progress,
    ):
        rest = ""  # the beginning of a word whose end is in the next chunk
        while chunk := file.read(CHUNK):
            progress.update(file.buffer.tell() if file.seekable() else 0)
            chunk = without_marks(chunk)
            words = split_words(rest + chunk)
            rest = words.pop() if words and not chunk.endswith(tuple(SPACE)) else ""
            yield words
        if rest:
            yield [rest]


def read_lines(file):
    """Yields a text as lists of lines, each as soon as it has come; a line keeps its `\\n`.

    What a program writes into a pipe, or a person at a terminal, comes line by line; a file comes
    in large lists. Here only `\\n` and `\\r\\n` end a line, so that there are as many as other
    tools count. A `\\r` within a line is the word `<eos>`, as in a corpus.

    Args:
      file: the name of a text file, or the number of an open file descriptor.

    Raises:
      UserError: the file cannot be read, or is not UTF-8.
    """

    def lines_of(data):
        text = without_marks(data.decode("utf-8-sig" if is_first else "utf-8"))
        text = text.replace("\r\n", "\n").replace("\r", f" {EOS} ")
        return [*io.StringIO(text, newline="\n")]

    with (
        _readable_text(file) as without_marks,
        open(file, "rb", closefd=file != 0) as source,
    ):
        is_first = True
        rest = []  # the parts of a line whose end has not come yet
        while part := source.read1(CHUNK):
            whole, end, begun = part.rpartition(b"\n")
            if end:
                yield lines_of(b"".join([*rest, whole, end]))
                is_first, rest = False, []
            rest.append(begun)
        if any(rest):
            yield lines_of(b"".join(rest))


@contextlib.contextmanager
def _readable_text(file):
    """Within it, what is wrong with a text is a UserError that names it.

    Yields a function that takes and returns a part of the text: it leaves out byte order marks,
    which is said at the end.
    """
    marks = 0

    def without_marks(text):
        nonlocal marks
        marks += text.count(BYTE_ORDER_MARK)
        return text.replace(BYTE_ORDER_MARK, "")

    try:
        yield without_marks
    except UnicodeDecodeError as error:
        raise UserError(f"{_shown(file)}: {_what_is_not_utf8(file)}") from error
    except OSError as error:
        raise UserError(f"{_shown(file)}: {error.strerror}; it must be a readable text") from error
    if marks:
        print(f"{_shown(file)}: byte order marks within the text were left out.", file=sys.stderr)


def _shown(file):
    """Returns how a message names a file, or the descriptor of stdin."""
    return "stdin" if file == 0 else file


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


def word_ids(words, word_to_id, name, line=1):
    """Yields the ids of the words of a text; words not in `word_to_id` are `<unk>`.

    Args:
      words: the words.
      word_to_id: the id of each word.
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
        if files.is_stream(path):
            raise UserError(f"{path} is no regular file; a corpus is read more than once")


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


def how_it_is_read(data_path, raw_data, vocabulary):
    """Returns what there is to say of how the texts of a corpus are read, as a list of lines.

    These are the share of `<unk>` in each text, a warning where that spoils the perplexity, and
    what becomes of the marks that other tools put into a text.

    Args:
      data_path: the folder of the corpus.
      raw_data: what ptb_raw_data returned for it.
      vocabulary: the words by id.
    """
    lines = _unknown_words_in(dict(zip(PARTS, raw_data)), vocabulary)
    notes = []
    marks = [word for word in vocabulary if word.lower() in MARKS and word not in (EOS, UNK)]
    if marks:
        notes.append(
            f"Words like any other: {', '.join(marks)}. Only the end of a line is read as {EOS}, "
            f"and only {UNK} stands for words outside the vocabulary."
        )
    num_lines = sum(
        _written_ends(path) for path, ids in zip(corpus_files(data_path), raw_data)
        if EOS in vocabulary and _has_twice(ids, vocabulary.index(EOS))
    )
    if num_lines:
        notes.append(
            f"The {EOS} written at the end of {num_lines:,} lines is read as a word, and the line "
            "end as another; leave it out of the texts."
        )
    return [*lines, " ".join(notes)] if notes else lines


def _unknown_words_in(texts, vocabulary):
    """Returns the lines of how_it_is_read on `<unk>`, for {part: ids}."""
    if UNK not in vocabulary:
        return []
    unk = vocabulary.index(UNK)
    counts = {part: np.count_nonzero(ids == unk) for part, ids in texts.items()}
    if not any(counts.values()):
        return []
    shares = {part: counts[part] / len(ids) for part, ids in texts.items()}
    shown = ", ".join(f"{100 * share:.1f}% of {part}" for part, share in shares.items())
    lines = [f"{UNK} is {shown}."]
    problems = []
    many = " and ".join(part for part in PARTS[1:] if shares[part] > MANY)
    if many:
        problems.append(
            f"over {MANY:.0%} of {many} is {UNK}, so the perplexity says little: put spaces "
            "between words, or raise vocab_size"
        )
    untrained = " and ".join(part for part in PARTS[1:] if counts[part] and not counts["train"])
    if untrained:
        problems.append(
            f"{UNK} is in {untrained} but never in train, so nothing is learned of it: with "
            f"vocab_size below {len(vocabulary):,} the rarest words of train become {UNK}"
        )
    return [*lines, f"Warning: {'; '.join(problems)}."] if problems else lines


def _has_twice(ids, word_id):
    """Returns whether a word follows itself somewhere."""
    return bool(np.any((ids[1:] == word_id) & (ids[:-1] == word_id)))


def _written_ends(filename):
    """Returns how many lines of a text have `<eos>` written before their line end."""
    with open(filename, encoding="utf-8-sig") as file:
        return sum(
            EOS in line and line.endswith("\n") and split_words(line)[-2:] == [EOS, EOS]
            for line in file
        )


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
