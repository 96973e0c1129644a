"""How far long work is: one line on a terminal, that goes when the work is done."""

import contextlib
import os
import shutil
import sys
import time
import unicodedata

PATIENCE = 1.0  # seconds that work takes before anything of it is shown
INTERVAL = 0.2  # seconds between two updates


class Line(contextlib.AbstractContextManager):
    """One line on stderr where that is a terminal; else nothing.

        with Line() as line, line.below_output():
            line.show("half done")
            print("this goes above it")
    """

    def __init__(self):
        self._next = time.monotonic() + PATIENCE
        self._shown = False

    def show(self, text, at_once=False):
        """Shows a text, as much as fits the line, or nothing where the last one is very recent.

        Args:
          text: what to show.
          at_once: show it in any case.
        """
        if not (self.is_due() or at_once and sys.stderr.isatty()):
            return
        width = _terminal_width() - 1
        self._shown = False  # The text takes the place of the last one, see _Above.
        print(f"\r{_cut(text, width)}\033[K", end="", file=sys.stderr, flush=True)
        self._next = time.monotonic() + INTERVAL
        self._shown = True

    def is_due(self):
        """Returns whether a text would be shown now."""
        return time.monotonic() >= self._next and sys.stderr.isatty()

    def clear(self):
        """Removes the text until the next one is shown."""
        if self._shown:
            self._shown = False
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def below_output(self):
        """Within it, what is printed takes the line's place."""
        with (
            contextlib.redirect_stdout(_Above(sys.stdout, self)),
            contextlib.redirect_stderr(_Above(sys.stderr, self)),
        ):
            yield

    def __exit__(self, *_):
        self.clear()


def counted(number, noun):
    """Returns a number and what is counted, in the singular or plural: "1 word", "2,000 words"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def columns(text):
    """Returns how many columns a text takes in a row of equal ones; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _terminal_width():
    """Returns how many columns the terminal has, also where stdout is none."""
    width = shutil.get_terminal_size((0, 0)).columns  # It asks stdout.
    if not width:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            width = os.get_terminal_size(sys.__stderr__.fileno()).columns
    return width or 80


def _cut(text, width):
    """Returns as much of a text as fits a number of columns."""
    for number, character in enumerate(text):
        width -= columns(character)
        if width < 0:
            return text[:number]
    return text


class _Above:
    """A stream that clears a line before it writes."""

    def __init__(self, stream, line):
        self._stream = stream
        self._line = line

    def write(self, text):
        self._line.clear()
        return self._stream.write(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


class Progress(Line):
    """Shows `what: done of total`.

        with Progress("Reading ptb.train.txt", total=size) as progress:
            ...
            progress.update(done)

    The total may be 0: unknown.
    """

    def __init__(self, what, total):
        super().__init__()
        self._what = what
        self._total = total

    def update(self, done):
        """Shows that `done` of the total is done."""
        amount = f"{100 * done / self._total:.0f}%" if self._total else f"{done:,}"
        self.show(f"{self._what}: {amount}")
