"""The README and the guides: their commands run, and their links lead somewhere.

The blocks of code (`sh`, `console`, `python`) of a page are run in their order, in a folder that
looks like the project's and has small models, unless a comment before a block says

    Not run by the tests: REASON.         Run by the slow tests: REASON.
    Run by tests/test_….                  This is the file NAME.

A file that a block shows with `cat` is the one that the commands after it read.
"""

import contextlib
import importlib
import inspect
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing
from pydoc_data import topics

import pytest
from absl.testing import flagsaver
from conftest import ROOT
from models import TinyConfig

import configs
import lstm
from ptb import dataset
from ptb.terminal import command_line

PAGES = [
    ROOT / "README.md", *sorted(ROOT.glob("ptb/docs/*.md")), ROOT / "simple-examples" / "README.md"
]
BLOCK = re.compile(
    r"(?:<!-- ([^>]*) -->\n)?^```(sh|console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
PIPE = re.compile(r"""\|(?=(?:[^"']|"[^"]*"|'[^']*')*$)""")  # not one between quotation marks
TEXT = (
    "the company said it will sell the unit\n the company expects a loss of $ N million this year\n"
    "shares rose on monday and bakers from the market sleep\n我们 的 语言 模型\n"
)


needs_bash = pytest.mark.skipif(
    os.name == "nt" or not shutil.which("bash"), reason="needs a shell of Unix"
)


class Block(typing.NamedTuple):
    note: str
    kind: str  # sh, console or python
    code: str

    @property
    def is_run(self):
        return not re.match("Not run by the tests: .|Run by tests/", self.note)

    @property
    def is_slow(self):
        return self.note.startswith("Run by the slow tests: ")


def blocks(page):
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def steps(block):
    """Yields (text, the lines shown as its output): each command, and what the shell does alone."""
    if block.kind == "console":
        for step in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
            command, *shown = step.splitlines(keepends=True)
            yield command, "".join(shown)
    else:
        lines = block.code.splitlines(keepends=True)
        for is_python, group in itertools.groupby(lines, lambda line: line.startswith("python ")):
            yield from ((text, "") for text in (group if is_python else ["".join(group)]))


def python(words, text, capsys):
    """Does what `python WORDS` does with a text on stdin, in this process where that is possible.

    Returns (exit status, stdout, stderr).
    """
    if words[0] == "lstm.py":
        main, args = command_line.run, [lstm.main, words]
    elif words[0] == "-m" and words[1].startswith("ptb.") and words[1] != "ptb.cluster":
        main, args = importlib.import_module(words[1]).main, [words[2:]]
    else:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *words], env=environment, input=text, text=True,
                              capture_output=True)
        return done.returncode, done.stdout, done.stderr
    stdin = os.dup(0)
    with open("stdin.txt", "w+", encoding="utf-8") as file, flagsaver.flagsaver():
        print(text, end="", file=file, flush=True)
        file.seek(0)
        os.dup2(file.fileno(), 0)
        try:
            main(*args)
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            os.dup2(stdin, 0)
            os.close(stdin)
    return status, *capsys.readouterr()


def run(text, capsys):
    """Runs a command, or lines for the shell, in the current folder; each has to succeed."""
    output = ""
    for stage in PIPE.split(text) if "python " in text else [text]:
        if stage.strip().startswith("python "):
            words = shlex.split(stage, comments=True)[1:]
            status, output, errors = python(words, output, capsys)
        else:
            done = subprocess.run(["bash", "-e", "-c", stage], input=output, text=True,
                                  capture_output=True)
            status, output, errors = done.returncode, done.stdout, done.stderr
        assert status == 0, f"{text}{output}{errors}"


class SmallConfig(TinyConfig):
    """Takes the place of the configurations, whose runs would take minutes and more."""

    num_layers = 1
    num_steps = 10
    batch_size = 10
    vocab_size = None


@contextlib.contextmanager
def inside(folder):
    """Within it a folder is the current one, and lstm.py finds small things; yields the patch."""
    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
        patch.chdir(folder)
        patch.setattr(dataset, "SAMPLE", os.path.join("simple-examples", "sample"))
        for name in "SmallConfig", "FiveConfig":
            patch.setattr(configs, name, SmallConfig, raising=False)
        yield patch


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder like the project's, with short texts and runs in Out/small and Out/small-sample."""
    folder = tmp_path_factory.mktemp("project")
    for name in "lstm.py", "ptb", "tests":
        (folder / name).symlink_to(ROOT / name)
    (folder / "raw.txt").write_text("　我们的语言模型\n" * 20, encoding="utf-8")
    for name in "sample", "data":
        (folder / "simple-examples" / name).mkdir(parents=True)
        for part in "train", "valid", "test":
            path = f"ptb.{part}.txt"
            text = (ROOT / "simple-examples" / "sample" / path).read_text(encoding="utf-8")
            text = TEXT + "".join(text.splitlines(keepends=True)[:150])
            (folder / "simple-examples" / name / path).write_text(text, encoding="utf-8")
    with inside(folder):
        for args in [], ["--data_path", "simple-examples/sample"]:
            lstm.main(["lstm.py", "--config", "small", *args])
    return folder


def run_blocks(page, with_slow_ones, project, tmp_path, capsys):
    """Runs the blocks of a page in a copy of a project."""
    copy = shutil.copytree(project, tmp_path / "project", symlinks=True)
    namespace = {"SmallConfig": SmallConfig}
    with inside(copy) as patch:
        patch.setattr(topics, "topics", dict(itertools.islice(topics.topics.items(), 30)))
        for block in blocks(page):
            if not block.is_run or block.is_slow and not with_slow_ones:
                continue
            if name := re.match(r"This is the file (\S+)\.$", block.note):
                (copy / name[1]).write_text(block.code, encoding="utf-8")
            elif block.kind == "python":
                exec(block.code, namespace)
                for name, value in namespace.items():
                    if name.endswith("Config"):  # Two epochs of it are enough.
                        value = type(name, (value,), {"max_epoch": 1, "max_max_epoch": 2})
                        patch.setattr(configs, name, value, raising=False)
            else:
                for text, shown in steps(block):
                    if name := re.match(r"cat (\S+)$", text):
                        (copy / name[1]).write_text(shown, encoding="utf-8")
                    run(text, capsys)


def named(pages):
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages]


# The other pages take longer, and other tests do what their commands do.
QUICK = ["README.md", "ptb/docs/averages.md"]


@needs_bash
@pytest.mark.parametrize("page", [
    pytest.param(*page.values, id=page.id, marks=[pytest.mark.slow] * (page.id not in QUICK))
    for page in named(filter(blocks, PAGES))
])
def test_commands_run(page, project, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run_blocks(page, False, project, tmp_path, capsys)


@needs_bash
@pytest.mark.slow
@pytest.mark.parametrize(
    "page", named(page for page in PAGES if any(block.is_slow for block in blocks(page)))
)
def test_commands_run_with_slow_ones(page, project, tmp_path, capsys):
    run_blocks(page, True, project, tmp_path, capsys)


def inline_commands(page):
    """Returns the commands in the sentences and tables of a page, and those that are not run."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"`(python (?:lstm\.py|-m ptb\.|tests/)[^`]+)`", BLOCK.sub("", text))
    for block in blocks(page):
        if not block.is_run:
            found += re.findall(r"^(?:\$ |.*&& )?(python .+)", block.code, re.MULTILINE)
    return found


@pytest.mark.parametrize("page", named(PAGES))
def test_commands_in_sentences_have_flags_that_exist(page):
    for command in inline_commands(page):
        words = [word for word in shlex.split(command, comments=True)[1:] if "…" not in word]
        if words[0] == "lstm.py":
            with flagsaver.flagsaver():
                assert lstm.FLAGS(words) == ["lstm.py"], command
            continue
        if words[0] == "-m":
            words[0] = words[1].replace(".", "/") + ".py"
        if (ROOT / words[0]).exists():
            code = (ROOT / words[0]).read_text() + inspect.getsource(command_line.Parser)
            assert [word for word in words if word[:2] == "--" and f'"{word}"' not in code] == []
        else:
            assert words[0] in ("pytest.py", "jieba.py", "venv.py"), command


def test_a_note_says_why_a_block_is_not_run():
    notes = {block.note for page in PAGES for block in blocks(page)}
    known = r"(Not run by the tests|Run by the slow tests): \S.+\.$|(Run by|This is the file) .+\.$"
    assert [note for note in notes if note and not re.match(known, note)] == []


def anchors(page):
    """Returns the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", named(PAGES))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match("https?:", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or anchor and anchor not in anchors(target):
                lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", named(PAGES))
def test_pictures_are_small(page):
    for name in re.findall(r"!\[.+\]\((.+)\)", page.read_text(encoding="utf-8")):
        assert 10_000 < (page.parent / name).stat().st_size < 200_000, name
