"""What computes: this machine's memory, its processor and its GPU, as far as a run must know."""

import os
import sys

from ptb import fused, gpu
from ptb.rnn import data_type
from ptb.terminal.quiet import tf


def memory_size():
    """Returns the bytes of memory of this machine; where the system does not say, its addresses."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def in_words(num_bytes):
    """Returns a number of bytes as a person reads it, such as "1.5 GiB"."""
    return f"{num_bytes / 2**30:,.1f} GiB"


def has_bfloat16_products():
    """Returns whether the processor multiplies bfloat16 numbers; None where Linux does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = {*file.read().split()}
    except OSError:
        return None
    return bool(names & {"avx512_bf16", "amx_bf16", "bf16"})  # The last one is of an Arm processor.


def description(session):
    """Returns what computes in a session: "TensorFlow 2.21.0 on CPU and GPU (NVIDIA H100)"."""
    types = sorted({d.device_type for d in session.list_devices() if "XLA" not in d.device_type})
    gpu_name = f" ({gpu.name()})" if gpu.is_visible() else ""
    return f"TensorFlow {tf.__version__} on {' and '.join(types)}{gpu_name}"


def notes(number_type, rnn_mode):
    """Returns lines on what this machine does otherwise than one might expect, or does slowly.

    Args:
      number_type: the name of the type in which matrix products take their operands.
      rnn_mode: how the LSTM is computed, "fused" or "basic".
    """
    lines = []
    if gpu.is_visible():
        if number_type == "float32" and gpu.has_tf32():
            lines.append(
                "The GPU takes the operands of float32 products as TF32; NVIDIA_TF32_OVERRIDE=0 in "
                "the environment prevents that."
            )
        reason = rnn_mode == "fused" and fused.why_not_cudnn(data_type(number_type), number_type)
        if reason:
            lines.append(f"The fast mode does without cuDNN's LSTM, and is slower: {reason}.")
        return lines
    if reason := gpu.why_unused():
        lines.append(f"There is a GPU, and TensorFlow computes without it: {reason}.")
    if number_type == "bfloat16" and has_bfloat16_products() is False:
        lines.append(
            "This processor has no bfloat16 products: float32 is faster here than --use_bf16."
        )
    return lines
