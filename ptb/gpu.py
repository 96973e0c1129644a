"""Whether TensorFlow has a GPU here, what that is, and why not where one is there in vain."""

import glob
import os
import re
import subprocess
import sys

from ptb.terminal.quiet import tf

LOOK = "import tensorflow as tf; tf.config.list_physical_devices('GPU')"
DRIVER_FILES = (  # where Linux has an NVIDIA driver; the last one is of Linux under Windows
    "/dev/nvidia[0-9]*", "/proc/driver/nvidia/gpus/*", "/usr/lib/wsl/lib/libcuda.so*"
)
PCI_DEVICES = "/sys/bus/pci/devices/*"  # where Linux lists all cards, also those without a driver


def is_visible():
    """Returns whether TensorFlow has a GPU; operations that have a kernel for it go there."""
    return bool(tf.config.list_physical_devices("GPU"))


def name():
    """Returns the name of the GPU that is used, the first one: "NVIDIA H100 80GB HBM3"."""
    return _details().get("device_name", "unknown")


def has_tf32():
    """Returns whether the GPU takes operands of float32 products as TF32, with 11 binary digits.

    TensorFlow's default is that it does where it can, and stays. Such products are several times
    as fast, and all sums stay float32. NVIDIA's libraries do without it where the environment has
    NVIDIA_TF32_OVERRIDE=0.
    """
    is_recent = _details().get("compute_capability", (0, 0)) >= (8, 0)
    return is_recent and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


def _details():
    return tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])


def why_unused():
    """Returns why TensorFlow does not use a GPU that is there; None where it does or none is.

    TensorFlow says so only in messages that quiet.py hides. Another process, which takes some
    seconds, hears them.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip()
    if is_visible() or not _is_there() or hidden in ("", "-1"):
        return None
    if not tf.test.is_built_with_cuda():
        return 'this TensorFlow is built without CUDA; pip install "tensorflow[and-cuda]" has it'
    try:
        process = subprocess.run(
            [sys.executable, "-c", LOOK], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", timeout=60,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return reason_in("")
    return reason_in(process.stderr)


def _is_there():
    """Returns whether there is an NVIDIA GPU, with a driver or without."""
    if any(glob.glob(pattern) for pattern in DRIVER_FILES):
        return True
    return any(
        _read(f"{device}/vendor") == "0x10de" and _read(f"{device}/class").startswith("0x03")
        for device in glob.glob(PCI_DEVICES)
    )


def _read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def reason_in(messages):
    """Returns why TensorFlow uses no GPU, given what it says while it looks for one."""
    libraries = re.findall(r"Could not load dynamic library '([^']+)'", messages)
    missing = [lib for lib in dict.fromkeys(libraries) if not lib.startswith("libnvinfer")]
    if "libcuda.so.1" in missing:
        return (
            "there is no NVIDIA driver, or it cannot be reached (libcuda.so.1 does not load); a "
            "container needs --gpus all"
        )
    if missing:
        return (
            f'{", ".join(missing)} cannot be loaded; pip install "tensorflow[and-cuda]" brings '
            "CUDA's libraries"
        )
    if failed := re.search(r"failed call to cuInit: (.+)", messages):
        return f"its driver does not start ({failed[1].strip()})"
    return f'TF_CPP_MIN_LOG_LEVEL=0 python -c "{LOOK}" shows what TensorFlow says'
