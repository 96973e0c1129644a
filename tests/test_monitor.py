"""What a person sees of a run besides the article's lines."""

import math
import os
import struct
import subprocess
import sys
import types

import models
import pytest
from conftest import ROOT

from ptb import fused, gpu
from ptb.saving.checkpoint import Position
from ptb.terminal import monitor, progress
from ptb.terminal.quiet import tf


@pytest.fixture
def clock(monkeypatch):
    """The time as monitor sees it: set `now` to let it pass."""
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(monitor, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def watch(epoch_size, epochs, clock, seconds=0.5):
    """Tells a Monitor of a training in which each step costs 3.0 nats and takes some seconds."""
    config = models.TinyConfig()
    config.max_max_epoch = epochs
    with progress.Line() as line, line.below_output():
        display = monitor.Monitor(config, epoch_size, line)
        for epoch in range(epochs):
            for step in range(1, epoch_size + 1):
                clock.now += 5 if epoch == 0 and step < 10 else seconds  # the first ones are slow
                display.train_step(
                    Position(epoch, step, 3.0 * step, seconds * step), perplexity=math.e
                )
            for step in range(1, 5):
                clock.now += seconds
                display.valid_step(Position(epoch, epoch_size), step / 4)


@pytest.mark.parametrize("steps, seconds, said", [
    (100, 0.01, "0 seconds"), (101, 1.0, "1 second"), (189, 1.0, "89 seconds"),
    (190, 1.0, "2 minutes"), (1600, 1.0, "25 minutes"), (5500, 1.0, "2 hours"),
    (36 * 360 + 99, 10.0, "36 hours"),
    (2260, 100.0, "2.5 days"),
])
def test_forecast_is_said_once_after_a_hundred_steps(steps, seconds, said, clock, capsys):
    """What is left after a hundred steps takes as long as they took, the first ten left out."""
    watch(max(steps, 101), 1, clock, seconds)
    assert capsys.readouterr().out == f"Training will take about {said}.\n"


@pytest.mark.parametrize("epoch, step, said", [
    (1, 0, "1 epoch and 0 steps"), (2, 1, "2 epochs and 1 step"), (0, 1500, "0 epochs and 1,500"),
])
def test_how_far_a_run_is(epoch, step, said):
    assert monitor.done(Position(epoch, step)).startswith(said)


def test_a_short_run_has_no_forecast(clock, capsys):
    watch(50, 2, clock)
    assert capsys.readouterr().out == ""


def test_live_line(clock, terminal, capsys):
    terminal()
    watch(200, 3, clock)
    shown = capsys.readouterr().err.split("\r")
    # 12 words a step, 0.5 s each; the perplexity is e.
    line = "Epoch 2/3 50%  perplexity 2.7  24 wps  left 0:00:51, run 0:02:32\033[K"
    assert line in shown  # the run's pace includes the validation before
    assert "Epoch 3/3 validation 75%\033[K" in shown
    assert shown[-1] == "\033[K"


def test_live_line_stays_below_what_is_printed(terminal, capfd):
    terminal()
    with progress.Line() as line, line.below_output():
        line.show("half done")
        print("printed")
        assert capfd.readouterr() == ("printed\n", "\rhalf done\033[K\r\033[K")
        line.show("more than half", at_once=True)
        line.show("nearly done", at_once=True)
        print("warning", file=sys.stderr)
        shown = "\rmore than half\033[K\rnearly done\033[K\r\033[Kwarning\n"
        assert capfd.readouterr() == ("", shown)


def test_live_line_is_cut_to_the_terminal(terminal, capsys, monkeypatch):
    terminal()
    monkeypatch.setenv("COLUMNS", "20")
    with progress.Line() as line:
        line.show("123456789 " * 5)
    assert "\r123456789 123456789\033[K\r" in capsys.readouterr().err


@pytest.mark.parametrize("columns, width", [(60, 59), (0, 79)])
def test_width_is_that_of_the_terminal_where_stdout_is_a_pipe(columns, width):
    """Of stderr; a terminal that does not know its width has 80 columns."""
    code = (
        "import sys; from ptb.terminal import progress; progress.PATIENCE = 0\n"
        "with progress.Line() as line: line.show('x' * 200)"
    )
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal,
        env=environment,
    )
    shown = os.read(reader, 1000)
    os.close(terminal)
    os.close(reader)
    assert process.returncode == 0 and shown.count(b"x") == width


def test_nothing_is_shown_in_a_file(clock, capsys):
    watch(50, 1, clock)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("compute_capability, override, tf32", [
    ((8, 0), None, True), ((9, 0), "0", False), ((7, 5), None, False), (None, None, False),
])
def test_says_what_a_gpu_is_and_does(
    compute_capability, override, tf32, script, corpus, tmp_path, monkeypatch
):
    """Here there is none: it is told of one, and finds that cuDNN does not work."""
    details = {"device_name": "NVIDIA Some", "compute_capability": compute_capability}
    details = {key: value for key, value in details.items() if value}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override or "")
    fused.why_not_cudnn.cache_clear()
    process = script("--config", "tst", "--data_path", corpus, "--save_path", tmp_path)
    assert process.returncode == 0, process.stderr
    assert f"TensorFlow {tf.__version__} on CPU (NVIDIA Some), saving in" in process.stdout
    assert ("products as TF32; NVIDIA_TF32_OVERRIDE=0 in the" in process.stdout) == tf32
    assert (
        "\nThe fast mode does without cuDNN's LSTM, and is slower: No OpKernel was registered to "
        "support Op 'CudnnRNNV3'"
    ) in process.stdout
    assert "Test Perplexity" in process.stdout


SAID = {  # what TensorFlow 2.21 says while it looks for a GPU
    "no driver": """\
I0000 00:00:1795777280.846408   23769 dso_loader.cc:144] Could not load dynamic library \
'libcuda.so.1'; dlerror: libcuda.so.1: cannot open shared object file: No such file or directory
E0000 00:00:1795777280.846465   23769 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA \
error: Failed call to cuInit: UNKNOWN ERROR (303)
""",
    "no libraries": """\
I0000 00:00:1795777280.846408   23769 dso_loader.cc:144] Could not load dynamic library \
'libcudnn.so.9'; dlerror: libcudnn.so.9: cannot open shared object file: No such file or directory
W0000 00:00:1795777280.846408   23769 gpu_device.cc:2365] Cannot dlopen some GPU libraries.
""",
    "old driver": """\
E0000 00:00:1795777280.846465   23769 cuda_platform.cc:52] failed call to cuInit: \
CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver / cuda driver combination
""",
    "nothing": "",
}


@pytest.mark.parametrize("case, reason", [
    ("no driver", "there is no NVIDIA driver, or it cannot be reached (libcuda.so.1 does not "),
    ("no libraries", "libcudnn.so.9 cannot be loaded; pip install \"tensorflow[and-cuda]\" brings"),
    ("old driver", "its driver does not start (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has"),
    ("nothing", "TF_CPP_MIN_LOG_LEVEL=0 python -c \"import tensorflow as tf; "),
])
def test_says_why_a_gpu_is_not_used(case, reason, script, corpus, tmp_path, monkeypatch):
    """In one line, and the training goes on."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(gpu, "DRIVER_FILES", [str(tmp_path / "nvidia[0-9]*")])
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: types.SimpleNamespace(
        stderr=SAID[case]
    ))
    process = script("--config", "tst", "--data_path", corpus, "--save_path", tmp_path / "out")
    assert f"\nThere is a GPU, and TensorFlow computes without it: {reason}" in process.stdout
    assert "Test Perplexity" in process.stdout


@pytest.mark.slow
def test_tensorflow_itself_is_asked_why(tmp_path, monkeypatch):
    """A card of NVIDIA's without a driver; TensorFlow's own words are understood."""
    if os.path.exists("/proc/driver/nvidia"):
        pytest.skip("there is a driver here")
    (tmp_path / "vendor").write_text("0x10de\n")
    (tmp_path / "class").write_text("0x030200\n")
    monkeypatch.setattr(gpu, "PCI_DEVICES", str(tmp_path))
    assert gpu.why_unused().startswith("there is no NVIDIA driver, or it cannot be reached")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpu.why_unused() is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (tmp_path / "class").write_text("0x020000\n")  # a network card
    assert gpu.why_unused() is None
