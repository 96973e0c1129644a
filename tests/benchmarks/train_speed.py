"""Times a training step: the matrix products alone, ours, and PyTorch where it is installed.

    python tests/benchmarks/train_speed.py --config small

The contenders take turns, round by round, each in a process of its own that keeps its model
between rounds. Every step is timed; printed are the medians over all rounds, in milliseconds and
words/s, the rate at which that does the products' arithmetic (GFLOP/s) and its share of the
machine's peak, and the ratios to the first two. The peak is the best rate of a square product of
the same number type. Let nothing else run meanwhile.

Where TensorFlow sees a GPU, all of them run there, and the table also says how many kernels a step
starts. Then float32 is float32; as TF32 it is another contender.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import types

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

WARM_UP = 5  # steps at the start of each round that are not counted
SQUARE = 2048  # rows and columns of the square matrices


def shapes(config):
    """Returns the matrix products of a step as (how often, m, k, n), of [m, k] by [k, n].

    Each layer: its input for all time steps at once, its recurrent product step by step, and on the
    way back the same and the two halves of the kernel's gradient. The softmax layer: forward, and
    the gradients of its input and its weights.
    """
    size, rows = config.hidden_size, config.batch_size * config.num_steps
    layer = [
        (1, rows, size, 4 * size), (config.num_steps, config.batch_size, size, 4 * size),
        (config.num_steps, config.batch_size, 4 * size, size), (1, rows, 4 * size, size),
        (2, size, rows, 4 * size),
    ]
    types = config.vocab_size
    softmax = [(1, rows, size, types), (1, rows, types, size), (1, size, rows, types)]
    return layer * config.num_layers + softmax


def products(config, _):
    """NumPy's matrix products at the shapes of a step; all the rest counts as free."""
    rng = np.random.default_rng(0)
    work = []
    for times, m, k, n in shapes(config):
        a, b = rng.random((m, k), np.float32), rng.random((k, n), np.float32)
        work.append((times, a, b, np.empty((m, n), np.float32)))

    def run_round(steps):
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            for times, a, b, out in work:
                for _ in range(times):
                    np.dot(a, b, out=out)
            seconds.append(time.perf_counter() - start)
        return seconds

    return run_round, None


def square(number_type):
    """Returns the contender that is TensorFlow's product of square matrices in a number type."""

    def contender(*_):
        from ptb.terminal.quiet import tf

        tf.disable_eager_execution()
        matrix = tf.Variable(tf.ones([SQUARE, SQUARE], number_type))
        product = tf.matmul(matrix, matrix).op
        session = tf.Session()
        session.run(matrix.initializer)

        def run_round(steps):
            seconds = []
            for _ in range(steps):
                start = time.perf_counter()
                session.run(product)
                seconds.append(time.perf_counter() - start)
            return seconds

        return run_round, None

    return contender


def ours(mode, bf16=False):
    """Returns the contender that is lstm.py's run_epoch in a mode."""

    def contender(config, data):
        import lstm
        from ptb import rnn, run
        from ptb.terminal.quiet import session_config, tf

        tf.disable_eager_execution()
        run.make_deterministic(lstm.FLAGS.seed)
        lstm.FLAGS.rnn_mode, lstm.FLAGS.use_bf16 = mode, bf16
        initializer = rnn.random_uniform_initializer(-config.init_scale, config.init_scale)
        with tf.variable_scope("Model", initializer=initializer):
            model = lstm.PTBModel(True, config, lstm.PTBInput(config, data))
        session = tf.Session(config=session_config())
        session.run(tf.global_variables_initializer())
        model.assign_lr(session, config.learning_rate)

        def run_round(_):
            ends = [time.perf_counter()]
            follower = run.Follower(lambda cost, now: ends.append(time.perf_counter()))
            lstm.run_epoch(session, model, model.train_op, follow=follower)
            return np.diff(ends)

        def kernels():
            options, told = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), tf.RunMetadata()
            session.run(model.train_op, {model.input.step: 0}, options, told)
            devices = {stats.device: stats.node_stats for stats in told.step_stats.dev_stats}
            return sum(len(devices[name]) for name in devices if name.endswith("stream:all"))

        return run_round, kernels

    return contender


def pytorch(compiled, bf16=False):
    """Returns the contender that is PyTorch's nn.LSTM, run as it is or through torch.compile."""

    def contender(config, data):
        import torch
        from torch import nn

        size, rate = config.hidden_size, 1 - config.keep_prob
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(1)
        torch.set_num_threads(os.cpu_count())
        torch.set_default_device(device)
        if device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, where the environment permits it.
        embedding, dropout = nn.Embedding(config.vocab_size, size), nn.Dropout(rate)
        layers = nn.LSTM(size, size, config.num_layers, dropout=rate)
        softmax = nn.Linear(size, config.vocab_size)
        parameters = [p for part in (embedding, layers, softmax) for p in part.parameters()]
        for parameter in parameters:
            nn.init.uniform_(parameter, -config.init_scale, config.init_scale)
        descent = torch.optim.SGD(parameters, lr=config.learning_rate)
        length = len(data) // config.batch_size
        rows = torch.from_numpy(data[: config.batch_size * length].astype(np.int64)).to(device)
        columns = rows.reshape(config.batch_size, length).T.contiguous()

        def train(x, y, state):
            descent.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                outputs, state = layers(dropout(embedding(x)), state)
                logits = softmax(dropout(outputs).flatten(0, 1))
                cost = nn.functional.cross_entropy(logits, y.flatten(), reduction="sum")
            cost = cost / config.batch_size
            cost.backward()
            nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            descent.step()
            return cost.detach(), [part.detach().float() for part in state]

        step = torch.compile(train) if compiled else train

        def run_round(steps):
            state = [torch.zeros(config.num_layers, config.batch_size, size) for _ in "hc"]
            seconds = []
            for i in range(steps):
                begin = time.perf_counter()
                first, last = i * config.num_steps, (i + 1) * config.num_steps
                cost, state = step(columns[first:last], columns[first + 1 : last + 1], state)
                float(cost)
                seconds.append(time.perf_counter() - begin)
            return seconds

        def kernels():
            with torch.profiler.profile() as profile:
                run_round(1)
            on_gpu = torch.autograd.DeviceType.CUDA
            return sum(event.device_type == on_gpu for event in profile.events())

        return run_round, kernels

    return contender


CONTENDERS = {
    "square": square("float32"),
    "square, bf16": square("bfloat16"),
    "matrix products": products,
    "fused": ours("fused"),
    "fused, bf16": ours("fused", bf16=True),
    "basic": ours("basic"),
    "basic, bf16": ours("basic", bf16=True),
    "PyTorch": pytorch(compiled=False),
    "PyTorch, compiled": pytorch(compiled=True),
    "PyTorch, bf16": pytorch(compiled=False, bf16=True),
    "PyTorch, compiled, bf16": pytorch(compiled=True, bf16=True),
}
ON_A_GPU = {  # Who takes part there; NumPy, for one, does not.
    "square": square("float32"),
    "square, TF32": square("float32"),
    "square, bf16": square("bfloat16"),
    **{
        f"{name}{type_}": contender
        for name, in_32_bits, in_16_bits in (
            ("fused", ours("fused"), ours("fused", bf16=True)),
            ("basic", ours("basic"), ours("basic", bf16=True)),
            ("PyTorch", pytorch(False), pytorch(False, bf16=True)),
            ("PyTorch, compiled", pytorch(True), pytorch(True, bf16=True)),
        )
        for type_, contender in (("", in_32_bits), (", TF32", in_32_bits), (", bf16", in_16_bits))
    },
}
ALL = {**CONTENDERS, **ON_A_GPU}


def work(name, config, data, steps):
    """Runs a contender in this process: a round for each line read, its milliseconds printed.

    When no more is to be read, the number of kernels of a step on a GPU is printed, 0 for unknown.
    """
    run_round, kernels = ALL[name](config, data)
    for _ in sys.stdin:
        seconds = run_round(steps)[WARM_UP:]
        print(*(f"{1e3 * s:.3f}" for s in seconds), flush=True)
    print(kernels() if kernels else 0)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="small", help="small, medium, large or one you added")
    parser.add_argument("--data_path", default="simple-examples/data", help="folder of the corpus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="timed steps of a round")
    parser.add_argument("--only", choices=ALL, action="append", help="some contenders only")
    parser.add_argument("--worker", choices=ALL, help=argparse.SUPPRESS)
    parser.add_argument("--ids", help=argparse.SUPPRESS)
    parser.add_argument("--fields", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    steps = args.steps + WARM_UP
    if args.worker:
        work(args.worker, types.SimpleNamespace(**args.fields), np.load(args.ids), steps)
        return

    # Not in the workers: PyTorch runs without TensorFlow.
    import configs
    from ptb import dataset, reader
    from ptb.terminal.command_line import POSITIVE, WHOLE, get_config

    config = get_config(args.config, configs)
    fields = {name: getattr(config, name) for name in (*WHOLE, *POSITIVE)}
    corpus = dataset.find_corpus(args.data_path, explicit=args.data_path != "simple-examples/data")
    data = reader.ptb_raw_data(corpus.folder, config.vocab_size)[0]
    words = config.batch_size * (steps * config.num_steps + 1)
    with tempfile.TemporaryDirectory() as folder:
        ids = os.path.join(folder, "ids.npy")
        np.save(ids, np.resize(data, words))
        compare(args, fields, ids)


def compare(args, fields, ids):
    """Runs the contenders in turn on the word ids in a file, and prints the table."""
    from ptb import gpu

    on_gpu = gpu.is_visible()
    names = args.only or [
        name for name in (ON_A_GPU if on_gpu else CONTENDERS)
        if not name.startswith("PyTorch") or importlib.util.find_spec("torch")
    ]
    workers = {}
    for name in names:
        command = [
            sys.executable, __file__, *sys.argv[1:], "--worker", name, "--ids", ids, "--fields",
            json.dumps(fields),
        ]
        workers[name] = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env={
                **os.environ,
                **({} if on_gpu else {"CUDA_VISIBLE_DEVICES": "-1"}),
                **({} if "TF32" in name or "bf16" in name else {"NVIDIA_TF32_OVERRIDE": "0"}),
            },
        )
    times = {name: [] for name in names}
    for round_ in range(args.rounds + 1):
        for name, worker in workers.items():
            print(f"round {round_} of {args.rounds}: {name}", end="\033[K\r", file=sys.stderr)
            worker.stdin.write("\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            if not line:
                sys.exit(f"{name} failed; its messages are hidden, see compare()")
            if round_ > 0:  # round 0 warms up
                times[name] += map(float, line.split())

    device = gpu.name() if on_gpu else "the processor"
    print(f"{args.config}, {args.rounds} rounds of {args.steps} steps on {device}     \033[K")
    bases = [name for name in ("matrix products", "fused") if name in names]
    columns = f"{'ms/step':>9}{'min':>9}{'words/s':>9}{'GFLOP/s':>9}{'of peak':>9}"
    columns += f"{'kernels':>9}" if on_gpu else ""
    print(f"{'':24}{columns}", *(f"   / {name}" for name in bases))
    config = types.SimpleNamespace(**fields)
    words = config.batch_size * config.num_steps
    flops = sum(2 * times_ * m * k * n for times_, m, k, n in shapes(config))
    of_square = 2 * SQUARE**3
    for name in names:
        median = np.median(times[name])
        type_ = next((type_ for type_ in (", TF32", ", bf16") if name.endswith(type_)), "")
        is_square = name.startswith("square")
        rate = (of_square if is_square else flops) / median / 1e6
        peak = times.get(f"square{type_}")
        share = f"{rate * min(peak) * 1e6 / of_square:9.0%}" if peak else " " * 9
        speed = " " * 9 if is_square else f"{words / median * 1e3:9.0f}"
        ratios = [f"{median / np.median(times[base]):{len(base) + 5}.2f}" for base in bases]
        workers[name].stdin.close()
        kernels = int(workers[name].stdout.readline() or 0)  # It may not be able to count them.
        share += f"{kernels or '':>9}" if on_gpu else ""
        print(f"{name:24}{median:9.2f}{min(times[name]):9.2f}{speed}{rate:9.0f}{share}", *ratios)


if __name__ == "__main__":
    main()
