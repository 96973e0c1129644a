"""What a person types or edits, wherever the script runs: notebooks, threads, closed streams."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from absl.testing import flagsaver
from conftest import ROOT

import lstm
from ptb.terminal import command_line
from ptb.terminal.errors import Stopped, UserError
from ptb.terminal.quiet import tf

TST = "--config", "tst"


def in_shell(command, **environment):
    """Runs a shell command in the project's folder; returns the finished process."""
    return subprocess.run(
        ["sh", "-c", command.replace("PYTHON", sys.executable)], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, **environment},
    )


@pytest.mark.parametrize("args, hint", [
    (["--model", "small"], "it is --config here"),
    (["--num_gpus=2"], "a GPU is used without a flag; ptb/docs/workers.md says"),
    (["--rnn_mode", "block"], "the tutorial's block mode is fused here"),
    (["--rnn_mode", "cudnn"], "the tutorial's cudnn mode is fused here"),
    (["--learning_rate", "0.5"], "learning_rate is set in configs.py"),
    (["--hidden-size=300"], "hidden_size is set in configs.py"),
    (["--epochs", "3"], "max_max_epoch is set in configs.py"),
])
def test_flags_of_other_scripts(args, hint, script):
    process = script(*args)
    assert process.returncode == 2 and hint in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_addresses_are_refused_before_anything_is_made(script, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flag in "--save_path", "--data_path":
        process = script(*TST, "--data_path", corpus, flag, "gs://bucket/run")
        assert process.returncode == 2
        assert "gs://bucket/run is an address; name a folder of this machine" in process.stderr
    assert set(os.listdir(tmp_path)) <= {"Out"}


@pytest.mark.parametrize("flag", ["--save_path", "--data_path", "--init_from"])
def test_empty_path_is_refused(flag, script, corpus, tmp_path, monkeypatch):
    """A shell writes one for a variable that is not set."""
    monkeypatch.chdir(tmp_path)
    process = script(*TST, "--data_path", corpus, f"{flag}=")
    assert process.returncode == 2
    assert process.stderr == f"lstm.py: {flag} is empty; name a file or folder\n"
    assert not os.listdir(tmp_path)


def test_home_folder(script, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert script(*TST, "--data_path", corpus, "--save_path=~/runs").returncode == 0
    assert os.listdir(tmp_path) == ["runs"] and os.listdir(tmp_path / "runs") == ["tst"]


def test_assigned_data_path_is_never_downloaded_to(flags, tmp_path, monkeypatch):
    """As in a notebook: FLAGS.data_path = "typo"."""
    monkeypatch.chdir(tmp_path)
    flags.data_path = "typo"
    with pytest.raises(lstm.command_line.UserError, match="--data_path: typo: no such folder"):
        lstm.main([])
    assert os.listdir(tmp_path) == []


NOTEBOOK = """
import io, runpy, sys
real, sys.argv[0] = sys.stdout, "lstm.py"
for said in "Saving model to", "is finished":
    sys.stdout = io.StringIO()  # It has no reconfigure and no descriptor, like a notebook's.
    try:
        runpy.run_path("lstm.py", run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, ended.code
    assert said in sys.stdout.getvalue(), sys.stdout.getvalue()
real.write("both")
"""


@pytest.mark.slow
def test_in_a_notebook_twice(corpus, tmp_path):
    """`%run lstm.py` and again: flags are defined anew, and stdout is not a file."""
    args = *TST, f"--data_path={corpus}", f"--save_path={tmp_path}"
    process = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, *args], cwd=ROOT, capture_output=True, text=True
    )
    assert (process.returncode, process.stdout) == (0, "both"), process.stderr


def test_main_with_arguments_is_that_command(corpus, tmp_path, flags, capsys):
    """As a notebook calls it; flags of an earlier call are forgotten, and those assigned kept."""
    def results():
        return re.findall("^The run in .*|^Test Perplexity: .*", capsys.readouterr().out, re.M)

    args = *TST, f"--data_path={corpus}", f"--save_path={tmp_path}"
    lstm.main(["lstm.py", *args, "--seed=3"])
    assert flags.seed == 3
    (perplexity,) = results()
    lstm.main(args + ("--seed=3",))  # without the name of the program
    assert results() == [f"The run in {tmp_path}/tst is finished:", perplexity]
    for mistake in ["--confg=tst"], ["tst"], ["--seed=one"]:
        with pytest.raises(command_line.UserError):
            lstm.main(["lstm.py", *mistake])
    assert flags.seed == 1
    with pytest.raises(command_line.UserError, match="seed was 3 and is 1"):
        lstm.main(["lstm.py", *args])
    flags.seed = 3
    for argv in [], ["lstm.py"], None:
        lstm.main(argv)
        assert results()[1:] == [perplexity]


IN_A_PROGRAM = """
import os, runpy, sys
import lstm, tensorflow
assert tensorflow.executing_eagerly()
assert not tensorflow.compat.v1.get_default_graph().get_operations()
assert lstm.FLAGS.config == "small" and lstm.data_type() == tensorflow.float32
assert os.listdir() == []
script = lstm.__file__

def run():
    sys.argv = ["lstm.py", "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, ended.code

run()
del sys.modules["lstm"]
import lstm
run()
lstm.flags.DEFINE_string("save_path", "a program's own", "The flag of a program that imports it.")
assert lstm.FLAGS.save_path == "a program's own"
from lstm import *
assert "main" not in globals() and PTBModel is lstm.PTBModel and SmallConfig is lstm.SmallConfig
lstm.main(["lstm.py", "--config", "tst", "--data_path", sys.orig_argv[-2], "--save_path",
           sys.orig_argv[-1]])
assert tensorflow.executing_eagerly()
"""


def test_in_a_program(corpus, tmp_path):
    """Imported and run in turn; the names, the flags and the mode of the program are its own.

    Importing starts nothing, and leaves no files.
    """
    (tmp_path / "empty").mkdir()
    process = subprocess.run(
        [sys.executable, "-c", IN_A_PROGRAM, "--unknown", corpus, tmp_path], text=True,
        capture_output=True, cwd=tmp_path / "empty", env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert f"\nSaving model to {tmp_path}/tst/" in process.stdout


@pytest.mark.parametrize("command, said", [
    ("ptb/language_model.py next Out/small", "python -m ptb.language_model"),
    ("ptb/plot.py", "python -m ptb.plot"), ("ptb/cluster.py", "python -m ptb.cluster"),
    ("ptb/export.py", "python -m ptb.export"), ("ptb/reader.py", "python lstm.py"),
])
def test_started_by_path(command, said):
    process = in_shell(f"PYTHON {command}")
    name = command.split()[0].removeprefix("ptb/")
    (line,) = process.stderr.splitlines()
    assert process.returncode == 2
    assert line.startswith(f"{name} is ") and line.endswith(f"; start this in {ROOT}: {said}")


def test_started_in_the_folder_of_the_package():
    for command in "-m ptb.plot", "-m plot", "plot.py":
        process = in_shell(f"cd ptb && PYTHON {command}")
        said = f"plot.py is a part of a package; start this in {ROOT}: python -m ptb.plot\n"
        assert (process.returncode, process.stderr) == (2, said)
    process = in_shell("cd ptb && PYTHON -c 'import ptb.reader'")
    assert process.stderr.endswith(f"ImportError: the package is to be imported from {ROOT}\n")


@pytest.mark.parametrize("command", ["lstm.py", "-m ptb.language_model", "-m ptb.plot"])
def test_what_must_be_installed_is_said(command):
    """Without the folder in which packages are installed."""
    process = in_shell(f"PYTHON -S {command}", PYTHONPATH="")
    (line,) = process.stderr.splitlines()
    assert process.returncode == 2
    assert re.fullmatch(
        r"(lstm.py|ptb): numpy and tensorflow must be installed: "
        rf'"{sys.executable}" -m pip install -r "{ROOT}/requirements.txt"', line
    )
    process = in_shell("PYTHON -S -c 'import ptb.reader'", PYTHONPATH="")  # a program's own affair
    assert process.stderr.endswith("ModuleNotFoundError: No module named 'numpy'\n")


@pytest.mark.parametrize("program, status", [
    pytest.param("lstm.py", 141, marks=pytest.mark.slow),  # It waits for TensorFlow.
    ("-m ptb.language_model", 0), ("-m ptb.plot", 0),  # argparse thinks so.
])
def test_help(program, status):
    """Also where python -OO has left out the docstrings, and where nobody reads it."""
    shown = in_shell(f"PYTHON -OO {program} --help")
    assert (shown.returncode, shown.stderr) == (0, "") and "--" in shown.stdout
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, *program.split(), "--help"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (status, b"")


def test_without_a_command():
    process = in_shell("PYTHON -m ptb.language_model")
    assert process.returncode == 2
    assert process.stderr == (
        "language_model.py: the following arguments are required: command, one of generate, next, "
        "score, similar; python -m ptb.language_model --help shows the use\n"
    )


def test_in_a_thread(corpus, tmp_path, flags):
    """Where Python allows no handlers of signals."""
    flags.config, flags.data_path, flags.save_path = "tst", str(corpus), str(tmp_path)
    errors = []

    def main():
        try:
            lstm.main([])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    assert errors == [] and len(list(tmp_path.glob("tst/checkpoint-*"))) == 2


def test_after_a_refused_start_the_folder_is_free(script, corpus, tmp_path):
    """Also while the traceback of the refusal is kept, as a notebook does."""
    args = *TST, "--data_path", corpus, "--save_path", tmp_path
    assert script(*args).returncode == 0
    with flagsaver.flagsaver():
        lstm.FLAGS(["lstm.py", *map(str, args), "--seed=2"])
        with pytest.raises(command_line.UserError, match="seed was 1 and is 2") as kept:
            lstm.main([])
        lstm.FLAGS(["lstm.py", *map(str, args), "--seed=2", "--restart"])
        lstm.main([])
    assert kept.value and (tmp_path / "tst-old-1").exists()


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed, corpus, tmp_path):
    process = in_shell(
        f"PYTHON lstm.py --config tst --data_path {corpus} --save_path {tmp_path} {closed}"
    )
    assert process.returncode == 0, process.stderr
    assert ("Saving model to" in process.stdout) == (closed == "2>&-")
    assert process.stderr == ""
    assert len((tmp_path / "tst" / "lock").read_text().splitlines()) == 1


@pytest.mark.parametrize("name, status, said", [
    ("é", 0, r"saving in {}/\xe9/tst"), ("a\udcff", 2, r"{}/a\udcff: the name is not UTF-8; use"),
])
def test_paths_that_the_terminal_cannot_show(name, status, said, corpus, tmp_path, monkeypatch):
    """They are printed as escapes. TensorFlow takes no path that is not UTF-8."""
    output = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", output)
    args = *TST, f"--data_path={corpus}", f"--save_path={tmp_path}/{name}"
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        command_line.run(lstm.main, ["lstm.py", *args])
    assert (ended.value.code or 0) == status
    assert said.format(tmp_path) in output.buffer.getvalue().decode("ascii")
    assert (tmp_path / name).exists() == (status == 0)


def test_lines_are_written_whole(monkeypatch):
    """With PYTHONUNBUFFERED, too. Otherwise lines of workers that share a pipe run together."""
    written = []

    class Pipe(io.RawIOBase):
        def writable(self):
            return True

        def write(self, part):
            written.append(bytes(part))
            return len(part)

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(Pipe(), write_through=True))
    command_line.print_whatever_it_is()
    print("lstm.py: stopped", "after a step", file=sys.stderr)
    print("the next line", file=sys.stderr)
    assert written == [b"lstm.py: stopped after a step\n", b"the next line\n"]


@pytest.mark.parametrize("error, status", [
    (UserError("wrong"), 2), (Stopped(15, "stopped"), 143), (KeyboardInterrupt(), 130),
])
def test_exit_status_needs_no_stderr(error, status, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Gone())
    with pytest.raises(SystemExit) as ended, command_line.errors_in_one_line("lstm.py"):
        print("a warning", file=sys.stderr)
        raise error
    assert ended.value.code == status


@pytest.mark.parametrize("error, said", [
    (MemoryError(), "Python got no more"),
    (MemoryError("Unable to allocate 2.00 PiB for an array"), "Unable to allocate 2.00 PiB"),
    (tf.errors.ResourceExhaustedError(None, None, "a\nfailed to allocate memory\nb"), "failed to"),
    (tf.errors.InternalError(None, None, "x\nDst tensor is not initialized.\n"), "Dst tensor is"),
])
def test_too_little_memory_is_one_line(error, said, capsys):
    with pytest.raises(SystemExit) as ended, command_line.errors_in_one_line("lstm.py"):
        raise error
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"lstm.py: out of memory ({said}") and printed.count("\n") == 1


def test_bugs_keep_their_traceback():
    too_many = tf.errors.ResourceExhaustedError(None, None, "Too many open files")
    for error in too_many, tf.errors.InternalError(None, None, "a bug"), AttributeError("a bug"):
        with pytest.raises(type(error)), command_line.errors_in_one_line("lstm.py"):
            raise error


# TensorFlow's messages.

FAKE = """
import os, sys, time
os.write(2, b"why it failed\\n")
{}
"""
# A terminal sends Ctrl-C to the keeper of the messages, too, which reads once a full pipe empties.
TO_ALL = (
    "import signal; os.write(2, b'.' * 1_000_000); signal.signal(2, signal.SIG_IGN); "
    "os.killpg(0, 2); "
)


@pytest.mark.parametrize("what, status, said", [
    ("os.abort()", -6, "why it failed"),
    ("raise ImportError('broken')", 1, "why it failed"),
    ("sys.exit(0)", 0, "why it failed"),
    (TO_ALL + "os.abort()", -6, "why it failed"),
])
def test_last_words_of_tensorflow_are_shown(what, status, said, tmp_path):
    """A package in its place that fails while it is imported."""
    printed = what_loading_prints(what, status, tmp_path)
    assert said in printed
    assert ("Traceback" in printed) == (status == 1)


def test_ctrl_c_while_tensorflow_loads_is_one_line(tmp_path):
    printed = what_loading_prints("raise KeyboardInterrupt", -2, tmp_path)
    assert printed == "-c: interrupted\n"


def test_ctrl_c_while_numpy_loads_is_one_line(tmp_path):
    """It is what a script loads first."""
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "lstm.py"], cwd=ROOT, env=env, text=True, capture_output=True
    )
    assert (process.returncode, process.stderr) == (-signal.SIGINT, "lstm.py: interrupted\n")


def test_ctrl_c_while_tensorflow_loads_hides_no_later_mistake(tmp_path):
    """In a program that goes on after it."""
    program = "try: tf.Session\nexcept KeyboardInterrupt: pass\nraise OSError('later')"
    printed = what_loading_prints("raise KeyboardInterrupt", 1, tmp_path, program)
    assert printed.startswith("Traceback") and printed.endswith("OSError: later\n")


def what_loading_prints(what, status, tmp_path, program="tf.Session"):
    """Returns stderr of a process in which loading TensorFlow does `what` and ends so."""
    (tmp_path / "tensorflow.py").write_text(FAKE.format(what))
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from ptb.terminal.quiet import tf\n{program}"], stderr=write,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "TF_CPP_MIN_LOG_LEVEL": "3"},
        start_new_session=True,
    )
    os.close(write)
    with open(read) as stderr:
        printed = stderr.read()  # until the keeper of the messages is done as well
    assert process.wait() == status
    return printed


# configs.py

def edited(tmp_path, monkeypatch, text):
    (tmp_path / "edited.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "edited", raising=False)
    monkeypatch.setattr(sys, "argv", ["lstm.py"])
    return command_line.import_edited("edited")


def test_only_configurations_come_along(tmp_path, monkeypatch):
    """Whatever else a user has in configs.py, the script's own names stay."""
    text = "reader = perplexity = 1\nimport os as tf\nclass WideConfig: pass\nConfig = 3\n"
    assert edited(tmp_path, monkeypatch, text).__all__ == ["WideConfig"]


@pytest.mark.parametrize("text, where", [
    ("x = 1\nimport json\njson.loads('{')\n", "edited.py, line 3: JSONDecodeError"),
    ("\nx = [\n", "edited.py, line 2: SyntaxError: '[' was never closed; fix the file"),
    ("import broken_library\n", "edited.py, line 1: SyntaxError"),
    ("\nimport nowhere_to_be_found\n", "edited.py, line 2: ModuleNotFoundError"),
    ("import sys\nsys.exit()\n", "edited.py, line 2: SystemExit"),
    ("\0", "edited.py"),
])
def test_mistake_is_where_the_user_can_fix_it(text, where, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_library.py").write_text("\n\n\n\n(\n")
    with pytest.raises(SystemExit) as ended:
        edited(tmp_path, monkeypatch, text)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith(f"lstm.py: {where}") and line.endswith("; fix the file")


@pytest.mark.parametrize("is_folder", [False, True])
def test_missing_configs(is_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lstm.py"])
    monkeypatch.syspath_prepend(tmp_path)
    if is_folder:
        (tmp_path / "deleted_configs").mkdir()
    with pytest.raises(SystemExit) as ended:
        command_line.import_edited("deleted_configs")
    assert ended.value.code == 2
    said = "lstm.py: deleted_configs.py is missing; it belongs beside lstm.py\n"
    assert capsys.readouterr().err == said


# Windows.

LIKE_WINDOWS = """
import os, signal, subprocess, sys, types
for name in "fcntl", "resource", "pwd", "termios":
    sys.modules[name] = None
for name in "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU":
    delattr(signal, name)
locked = []
sys.modules["msvcrt"] = types.SimpleNamespace(
    LK_NBLCK=2, locking=lambda descriptor, mode, size: locked.append((mode, size))
)
import ptb.saving.files
ptb.saving.files.os = types.SimpleNamespace(**{**vars(os), "name": "nt"})
"""
LOCK = LIKE_WINDOWS + """
with ptb.saving.files.lock(sys.argv[1]):
    print(locked)
"""
WINDOWS = LIKE_WINDOWS + """
import lstm
lstm.FLAGS(["lstm.py", "--config=tst", "--data_path=" + sys.argv[1], "--save_path=" + sys.argv[2]])
lstm.main([])
from ptb.language_model import LanguageModel
print(LanguageModel.load(os.path.join(sys.argv[2], "tst")).next_words("w1", top_k=1))
print(locked)
"""


def test_lock_without_what_windows_lacks(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", LOCK, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert (process.stdout, process.stderr) == ("[(2, 1)]\n", "")


@pytest.mark.slow
def test_without_what_windows_lacks(corpus, tmp_path):
    """A run and a question; the modules of Linux and macOS are hidden."""
    process = subprocess.run(
        [sys.executable, "-c", WINDOWS, corpus, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "[(2, 1)]"
    assert "Saving model to" in process.stdout and process.stderr == ""


@pytest.mark.parametrize("module", ["ptb.language_model", "ptb.plot"])
def test_what_needs_no_tensorflow_does_not_load_it(module):
    code = (
        f"import sys, {module} as module\n"
        "for args in ['--help'], [], ['next', '/nowhere', '--prompt', 'the']:\n"
        "    try: module.main(args)\n"
        "    except SystemExit: pass\n"
        "sys.exit('tensorflow' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
