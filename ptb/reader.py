"""Reads a corpus: text files -> word ids -> the (x, y) tensors of a training step.

The functions carry the names of the reader of the TensorFlow PTB tutorial. A corpus is a folder
with `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`, or `train.txt`, `valid.txt` and
`test.txt`: UTF-8, words between spaces, one sentence a line.

A word is what lies between spaces, tabs and line ends. Other white space of Unicode, such as the
no-break space, is part of a word, as it is for `wc` and most tools that count words.
"""

import codecs
import collections
import contextlib
import io
import itertools
import os
import re
import sys

import numpy as np

from ptb.saving import files
from ptb.terminal.errors import UserError
from ptb.terminal.progress import Progress, counted
from ptb.terminal.quiet import tf

EOS = "<eos>"
UNK = "<unk>"
CHUNK = 1 << 20  # characters read at a time, so that the memory does not grow with the file
SPACE = " \t\n\r\f\v"
WORD = re.compile(f"[^{SPACE}]+")
BYTE_ORDER_MARK = "\ufeff"
# The signs of Chinese and Japanese, which are written without spaces between the words.
HAN_OR_KANA = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
LONG_WORD = 7  # So many of them in one word seem to be several words.
PLAUSIBLE = 0.6  # this share of frequent signs makes a text plausible
SAMPLE = 1 << 16  # characters, or bytes, at the beginning of a text by which it is judged
BLANK = re.compile(r"[\s\u200b\u2060]+")  # white space of every kind, and of no width
PARTS = ("train", "valid", "test")
NO_SPACES = "there are no spaces between the words of {}; put them in, as a segmenter does"
MANY = 0.2  # more <unk> than this share of a text is worth a warning
# {an encoding: (its name in iconv and Python, the bytes of its frequent signs)}. These are Hangul,
# or Chinese characters without the rare ones that each standard has at its end, and Kana in
# Japanese alone; so few signs of a text in another encoding are among them. Of two encodings that
# are equally plausible the first is meant.
ENCODINGS = {
    "EUC-KR": ("CP949", rb"[\xa1\xb0-\xc8][\xa1-\xfe]"),
    "Shift-JIS": ("CP932", rb"[\x81-\x83\x88-\x98][\x40-\xfc]"),
    "GB18030": ("GB18030", rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]"),
    "EUC-JP": ("EUC-JP", rb"[\xa1\xa4\xa5\xb0-\xcf][\xa1-\xfe]"),
    "Big5": ("CP950", rb"[\xa1-\xc6][\x40-\x7e\xa1-\xfe]"),
}
# Letters with accents stand between letters without.
ACCENTED = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
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
    if filename == 0 or not os.path.isfile(filename):
        return "it is not UTF-8; convert it first"  # It cannot be read again to say more.
    number, sample, size = None, [], 0
    with open(filename, "rb") as file:
        start = file.read(SAMPLE)
        file.seek(0)
        for line_number, line in enumerate(file, start=1):
            if not _decodes(line, "utf-8"):
                number = number or line_number
                sample.append(line)
                size += len(line)
                if size > SAMPLE:
                    break
    guess, encoding = _encoding_of(start, b"".join(sample))
    return (
        f"line {number} is not UTF-8, {guess}; convert it first: "
        f"iconv -f {encoding} -t UTF-8 '{filename}' > converted.txt"
    )


def _encoding_of(start, lines):
    """Returns (what there is to say of the encoding of a text, how iconv names it).

    Args:
      start: the bytes at the beginning of the text.
      lines: lines of it that are not UTF-8.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "but UTF-16", "UTF-16"
    if b"\0" in start:  # Every ASCII sign has one in UTF-16.
        name = max(
            "UTF-16LE", "UTF-16BE", key=lambda name: start.decode(name, "ignore").count("\n")
        )
        return f"but seems to be {name}", name
    plausible = {name: _plausibility(lines, *ENCODINGS[name]) for name in ENCODINGS}
    best, second = sorted(ENCODINGS, key=plausible.get, reverse=True)[:2]
    if plausible[best] >= PLAUSIBLE:
        is_close = plausible[best] - plausible[second] < 0.1
        names = best + (f", or else {second}" if is_close else "")
        return f"but seems to be {names}", ENCODINGS[best][0]
    high_bytes = len(lines) - len(lines.decode("ascii", "ignore"))
    if len(ACCENTED.findall(lines)) > high_bytes / 2:
        return "but seems to be WINDOWS-1252, if it is of Western Europe", "WINDOWS-1252"
    return "and its encoding is not known here (iconv -l lists what there is)", "ENCODING"


def _plausibility(text, encoding, frequent):
    """Returns which share of the signs in bytes, ASCII left out, is frequent in an encoding.

    It is 0 where they are no text in that encoding.
    """
    if not _decodes(text, encoding):
        return 0
    signs = [sign.encode(encoding) for sign in text.decode(encoding) if not sign.isascii()]
    return sum(bool(re.fullmatch(frequent, sign, re.DOTALL)) for sign in signs) / len(signs)


def _decodes(text, encoding):
    """Returns whether bytes are text in an encoding."""
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _build_vocab(filename, vocab_size=None):
    """Returns {word: id}, ids by falling count in the file, then alphabetically.

    With a `vocab_size`, at most that many: the most frequent words and `<unk>`. `<unk>` takes the
    last id where the file has none, or where it is too rare to be kept for its own count.

    Raises:
      UserError: the file cannot be read, is not UTF-8, or holds no word.
    """
    words = _by_count(_read_words(filename), filename)
    if UNK not in words[:vocab_size]:
        words = [word for word in words if word != UNK]
        words = words[: None if vocab_size is None else vocab_size - 1] + [UNK]
    return {word: i for i, word in enumerate(words[:vocab_size])}


def _by_count(words, filename):
    """Returns the different words of a file by falling count, then alphabetically, as a list.

    Raises UserError where there are none.
    """
    counter = collections.Counter(words)
    if not counter:
        raise UserError(f"{filename}: no words in it; give it some lines, one sentence on each")
    return sorted(counter, key=lambda word: (-counter[word], word))


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


def read_vocabulary(data_path, vocab_size=None):
    """Returns the list of the words of a corpus folder, by id; see _build_vocab."""
    train_path = corpus_files(data_path)[0]
    _refuse_pipes([train_path])
    return list(_build_vocab(train_path, vocab_size))


def read_tutorials_vocabulary(data_path):
    """Returns the list of the words that the tutorial's reader makes of a corpus folder, by id.

    It puts `<eos>` in place of each line end and then splits at white space of every kind. So
    where there is none before or after a line end, the words there are one: `goose<eos>the`.
    `<unk>` is a word like the others.

    Raises:
      UserError: the text cannot be read, is not UTF-8, or holds no word.
    """
    path = corpus_files(data_path)[0]
    _refuse_pipes([path])
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
    for path, ids in zip(corpus_files(data_path)[:2], raw_data):
        if len(ids) < batch_size * (num_steps + 1):
            separate = f"; {NO_SPACES.format('it')}" if _is_unseparated(path) else ""
            raise UserError(f"{path}: {_too_few(len(ids), batch_size, num_steps)}{separate}")


def unseparated_words(words):
    """Returns which words of a line seem to be several, in Chinese or Japanese without spaces."""
    fewest = 2 if len(words) == 1 else LONG_WORD
    return [word for word in words if len(HAN_OR_KANA.findall(word)) >= fewest]


def _is_unseparated(filename):
    """Returns whether most Chinese or Japanese at the beginning of a text has no spaces."""
    with open(filename, encoding="utf-8-sig") as file:
        text = file.read(SAMPLE)
    joined = itertools.chain.from_iterable(
        unseparated_words(split_words(line)) for line in text.split("\n")
    )
    return 2 * len(HAN_OR_KANA.findall("".join(joined))) > len(HAN_OR_KANA.findall(text))


def how_it_is_read(data_path, raw_data, vocabulary, vocab_size, source=None):
    """Returns what there is to say of how the texts of a corpus are read, as a list of lines.

    These are the share of `<unk>` in each text, a warning where something spoils the perplexity,
    and what becomes of white space and of the marks that other tools put into a text.

    Args:
      data_path: the folder of the corpus.
      raw_data: what ptb_raw_data returned for it.
      vocabulary: the words by id.
      vocab_size: how many words the model has room for.
      source: the path of the model whose vocabulary it is; None where it is that of the corpus.
    """
    lines = []
    shares = _unknown_shares(dict(zip(PARTS, raw_data)), vocabulary)
    if any(shares.values()):
        shown = ", ".join(f"{100 * share:.1f}% of {part}" for part, share in shares.items())
        lines.append(f"{UNK} is {shown}.")
    problem = _problem_of(corpus_files(data_path), shares, vocabulary, vocab_size, source)
    if problem:
        lines.append(f"Warning: {problem}.")
    notes = []
    blank = [i for i, word in enumerate(vocabulary) if BLANK.fullmatch(word) or "\u3000" in word]
    if blank:
        share = np.isin(raw_data[0], blank).mean()
        signs = {sign for i in blank for sign in vocabulary[i] if BLANK.fullmatch(sign)}
        shown = ", ".join(sorted(f"U+{ord(sign):04X}" for sign in signs))
        notes.append(
            f"White space that separates nothing ({shown}) is, or is in, {share:.1%} of the words "
            "of train, and the perplexity looks better for it; put plain spaces in its place."
        )
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
            f"The {EOS} written at the end of {counted(num_lines, 'line')} is read as a word, and "
            "the line end as another; leave it out of the texts."
        )
    return [*lines, " ".join(notes)] if notes else lines


def _unknown_shares(texts, vocabulary):
    """Returns {part: share of `<unk>`} for {part: ids}."""
    unk = vocabulary.index(UNK) if UNK in vocabulary else -1
    return {part: np.count_nonzero(ids == unk) / max(len(ids), 1) for part, ids in texts.items()}


def _problem_of(paths, shares, vocabulary, vocab_size, source):
    """Returns what spoils the perplexity, and what to do; see how_it_is_read.

    Args:
      paths: the files of the corpus.
      shares: the share of `<unk>` in each part.
      vocabulary, vocab_size, source: as there.
    """
    unseparated = ", ".join(path for path in paths if _is_unseparated(path))
    if unseparated:
        return NO_SPACES.format(unseparated)
    many = " and ".join(part for part in PARTS[1:] if shares[part] > MANY)
    problems = []
    if many:
        known = {*vocabulary}
        if source:
            cause = f"{source} does not know these words; start from a model of texts like these"
        elif any(word not in known for word in _read_words(paths[0])):
            cause = (
                f"vocab_size keeps {len(vocabulary):,} words of train; raise it in configs.py, or "
                "set it to None to keep all"
            )
        else:
            cause = "train never has these words; train on more text, or on text of this kind"
        problems.append(
            f"over {MANY:.0%} of {many} is {UNK}, so the perplexity says little: {cause}"
        )
    untrained = " and ".join(part for part in PARTS[1:] if shares[part] and not shares["train"])
    if untrained and not source:
        problems.append(
            f"{UNK} is in {untrained} but never in train, so nothing is learned of it: with "
            f"vocab_size below {len(vocabulary):,} the rarest words of train become {UNK}"
        )
    if problems and not source and len(vocabulary) < vocab_size:
        problems.append(
            f"vocab_size is {vocab_size:,} and train has {len(vocabulary):,} words: even None is "
            "better, as the model then has no more than these"
        )
    return "; ".join(problems)


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
