"""What is odd about a corpus, and what to do: its encoding, its spaces, its unknown words, marks.

The reader asks, and gives what it has read.
"""

import codecs
import os
import re
import shlex
import typing

import numpy as np

from ptb.terminal.progress import counted

# {an encoding: (its name in iconv and Python, the bytes of its frequent characters)}. These are
# Hangul, or Chinese characters without the rare ones that each standard has at its end, and Kana in
# Japanese alone; so few characters of a text in another encoding are among them. Of two encodings
# that are equally plausible the first is meant.
ENCODINGS = {
    "EUC-KR": ("CP949", rb"[\xa1\xb0-\xc8][\xa1-\xfe]"),
    "Shift-JIS": ("CP932", rb"[\x81-\x83\x88-\x98][\x40-\xfc]"),
    "GB18030": ("GB18030", rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]"),
    "EUC-JP": ("EUC-JP", rb"[\xa1\xa4\xa5\xb0-\xcf][\xa1-\xfe]"),
    "Big5": ("CP950", rb"[\xa1-\xc6][\x40-\x7e\xa1-\xfe]"),
}
PLAUSIBLE = 0.6  # this share of frequent characters makes a text plausible
# Letters with accents stand between letters without.
ACCENTED = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
BEGINNING = 1 << 16  # characters, or bytes, at the beginning of a text by which it is judged
# The characters of Chinese and Japanese, which are written without spaces between the words.
HAN_OR_KANA = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
LONG_WORD = 7  # So many of them in one word seem to be several words.
NO_SPACES = "there are no spaces between the words of {}; put them in, as a segmenter does"
MANY = 0.2  # more <unk> than this share of a text is worth a warning
BLANK = re.compile(r"[\s\u200b\u2060]+")  # white space of every kind, and of no width
MARKS = {  # what other tools write for line ends and unknown words, in lower case
    "<s>", "</s>", "<bos>", "<sos>", "<eos>", "<unk>", "<unknown>", "<oov>", "[unk]"
}
WRITTEN_EOS = re.compile(r"(^|[ \t\f\v])<eos>[ \t\f\v]*\n")  # at the end of a line


class Text(typing.NamedTuple):
    """One of the three texts of a corpus, as the reader has read it."""

    part: str  # "train", "valid" or "test"
    path: str
    ids: np.ndarray  # the ids of its words
    is_unseparated: bool  # see are_unseparated


def what_is_not_utf8(path):
    """Returns which line of a file is the first that is not UTF-8, and what converts the file.

    Args:
      path: the file, or 0 for stdin.
    """
    if path == 0 or not os.path.isfile(path):
        return "it is not UTF-8; convert it first"  # It cannot be read again to say more.
    number, sample, size = None, [], 0
    num_others = 0  # lines in UTF-8 that are not in ASCII
    with open(path, "rb") as file:
        start = file.read(BEGINNING)
        file.seek(0)
        for line_number, line in enumerate(file, start=1):
            if not _decodes(line, "utf-8"):
                number = number or line_number
                sample.append(line)
                size += len(line)
                if size > BEGINNING:
                    break
            elif not line.isascii():
                num_others += 1
    if num_others > len(sample):
        return f"line {number} is not UTF-8, unlike most others; mend it, or take it out"
    guess, encoding = _encoding_of(start, b"".join(sample))
    where = f"line {number}" if number else "it"
    return (
        f"{where} is not UTF-8, {guess}; convert it first: "
        f"iconv -f {encoding} -t UTF-8 {shlex.quote(path)} > converted.txt"
    )


def _encoding_of(start, lines):
    """Returns (what there is to say of the encoding of a text, how iconv names it).

    Args:
      start: the bytes at the beginning of the text.
      lines: lines of it that are not UTF-8.
    """
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "but UTF-32", "UTF-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "but UTF-16", "UTF-16"
    if seems_utf16(start):
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


def seems_utf16(text):
    """Returns whether so many bytes are NUL as in UTF-16, where every ASCII character has one."""
    return text.count(b"\0") > len(text) / 20


def _plausibility(text, encoding, frequent):
    """Returns which share of the characters in bytes, ASCII left out, is frequent in an encoding.

    It is 0 where the bytes are no text in that encoding.
    """
    if not _decodes(text, encoding):
        return 0
    characters = [each.encode(encoding) for each in text.decode(encoding) if not each.isascii()]
    found = [re.fullmatch(frequent, each, re.DOTALL) for each in characters]
    return sum(map(bool, found)) / len(found)


def _decodes(text, encoding):
    """Returns whether bytes are text in an encoding."""
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def unseparated_words(words):
    """Returns which words of a line seem to be several, in Chinese or Japanese without spaces."""
    fewest = 2 if len(words) == 1 else LONG_WORD
    return [word for word in words if len(HAN_OR_KANA.findall(word)) >= fewest]


def are_unseparated(lines):
    """Returns whether most Chinese or Japanese in lines (lists of words) has no spaces."""

    def count(words):
        return len(HAN_OR_KANA.findall("".join(words)))

    return 2 * sum(count(unseparated_words(line)) for line in lines) > sum(map(count, lines))


def notes_on(texts, train_words, vocabulary, vocab_size, model_path=None):
    """Returns what there is to say of how the texts of a corpus are read, as a list of lines.

    These are the share of `<unk>` in each text, a warning where something spoils the perplexity,
    and what becomes of white space and of the marks that other tools put into a text.

    Args:
      texts: the Texts of train, valid and test.
      train_words: an iterator over the words of train, which is used only where they matter.
      vocabulary: the words by id.
      vocab_size: how many words the model has room for.
      model_path: the model whose vocabulary it is; None where it is that of the corpus.
    """
    ids = {word: i for i, word in enumerate(vocabulary)}
    shares = {text.part: (text.ids == ids.get("<unk>", -1)).mean() for text in texts}
    lines = []
    if any(shares.values()):
        shown = ", ".join(f"{100 * share:.1f}% of {part}" for part, share in shares.items())
        lines.append(f"<unk> is {shown}.")
    unseparated = ", ".join(text.path for text in texts if text.is_unseparated)
    if unseparated:
        problem = NO_SPACES.format(unseparated)
    else:
        problem = _problem_of_unknown(shares, train_words, vocabulary, vocab_size, model_path)
    if problem:
        lines.append(f"Warning: {problem}.")
    notes = [_blank_words(vocabulary, texts[0].ids), _marks(vocabulary)]
    if "<eos>" in ids:
        notes.append(_written_ends(texts, ids["<eos>"]))
    notes = " ".join(filter(None, notes))
    return [*lines, notes] if notes else lines


def _problem_of_unknown(shares, train_words, vocabulary, vocab_size, model_path):
    """Returns how `<unk>` spoils the perplexity, and what to do; an empty text where it does not.

    Args:
      shares: {part: the share of `<unk>` in that text}.
      train_words, vocabulary, vocab_size, model_path: see notes_on.
    """
    problems = []
    many = " and ".join(part for part in ("valid", "test") if shares[part] > MANY)
    if many:
        known = {*vocabulary}
        if model_path:
            cause = (
                f"{model_path} does not know these words; start from a model of texts like these"
            )
        elif any(word not in known for word in train_words):
            cause = (
                f"vocab_size keeps {len(vocabulary):,} words of train; raise it in configs.py, or "
                "set it to None to keep all"
            )
        else:
            cause = "train never has these words; train on more text, or on text of this kind"
        problems.append(
            f"over {MANY:.0%} of {many} is <unk>, so the perplexity says little: {cause}"
        )
    untrained = " and ".join(part for part in shares if shares[part] and not shares["train"])
    if untrained and not model_path:
        problems.append(
            f"<unk> is in {untrained} but never in train, so nothing is learned of it: with "
            f"vocab_size below {len(vocabulary):,} the rarest words of train become <unk>"
        )
    if problems and not model_path and len(vocabulary) < vocab_size:
        problems.append(
            f"vocab_size is {vocab_size:,} and train has {len(vocabulary):,} words: even None is "
            "better, as the model then has no more than these"
        )
    return "; ".join(problems)


def _blank_words(vocabulary, train_ids):
    """Returns which white space is a word, or in one, and how often; None where there is none."""
    blank = [i for i, word in enumerate(vocabulary) if BLANK.fullmatch(word) or "\u3000" in word]
    if not blank:
        return None
    found = {each for i in blank for each in vocabulary[i] if BLANK.fullmatch(each)}
    shown = ", ".join(sorted(f"U+{ord(each):04X}" for each in found))
    return (
        f"White space that separates nothing ({shown}) is, or is in, "
        f"{np.isin(train_ids, blank).mean():.1%} of the words of train, and the perplexity looks "
        "better for it; put plain spaces in its place."
    )


def _marks(vocabulary):
    """Returns which marks of other tools are words, and what is none; None where none is."""
    ours = "<eos>", "<unk>"
    marks = [word for word in vocabulary if word.lower() in MARKS and word not in ours]
    return marks and (
        f"Words like any other: {', '.join(marks)}. Only the end of a line is read as <eos>, and "
        "only <unk> stands for words outside the vocabulary."
    )


def _written_ends(texts, eos):
    """Returns how many lines have `<eos>` before their line end; None where there are none.

    Args:
      texts: the Texts.
      eos: the id of `<eos>`.
    """
    num_lines = 0
    for text in texts:
        if np.any((text.ids[1:] == eos) & (text.ids[:-1] == eos)):
            with open(text.path, encoding="utf-8-sig") as file:
                num_lines += sum(bool(WRITTEN_EOS.search(line)) for line in file)
    return num_lines and (
        f"The <eos> written at the end of {counted(num_lines, 'line')} is read as a word, and "
        "the line end as another; leave it out of the texts."
    )
