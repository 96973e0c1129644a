"""Times a training step of several workers, each on one core, and counts the bytes that they send.

    python tests/benchmarks/cluster_speed.py --config small

Four contenders take turns, round by round:

    alone      one process on one core, with the rows of one worker, and nobody to talk to
    workers    as many workers as --workers, each on a core of its own, which share batch_size rows
    process    one process on as many cores, with batch_size rows
    larger     the same number of workers, with batch_size rows each

Printed are the medians over all rounds; the ratio of `workers` to `alone`, which is what the
exchange costs; the words/s of `larger` and `process`; and the bytes that `workers` send in a step,
counted by /proc/net/dev and by formula (see sent_bytes). Let nothing else run meanwhile.

    python tests/benchmarks/cluster_speed.py --config medium --paper

prints what the formula gives for clusters that are not here: the bytes that a worker sends in a
step, and the time that they take on networks of several speeds.
"""

import argparse
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


def sent_bytes(config, workers):
    """Returns the bytes of numbers that one worker sends in a training step.

    Of a gradient that is averaged it sends as many pieces as there are workers, twice all but one;
    of the embedding's gradient, its own slices and their word ids to each other worker. A cost, a
    signal and whether to save are a few numbers more.
    """
    size, layers, vocab_size = config.hidden_size, config.num_layers, config.vocab_size
    words = config.batch_size // workers * config.num_steps
    averaged = layers * (2 * size + 1) * 4 * size + (size + 1) * vocab_size + 1
    gathered = words * (size + 1) + 2
    return 4 * (workers - 1) * (2 * averaged / workers + gathered)


def on_paper(config, name):
    """Prints what each of several workers sends in a step, and how long that takes at least."""
    print(f"{name}: what a worker sends in a step, and the milliseconds for it at … Gbit/s")
    print(f"{'workers':>7}{'rows in all':>12}{'MB':>8}{'1':>8}{'10':>8}{'100':>8}")
    for workers, rows in (4, 20), (20, 20), (4, 80), (16, 320), (64, 1280):
        all_rows = types.SimpleNamespace(**{
            field: getattr(config, field) for field in dir(config) if not field.startswith("_")
        })
        all_rows.batch_size = rows
        sent = sent_bytes(all_rows, workers)
        times = "".join(f"{8e3 * sent / gigabits / 1e9:8.1f}" for gigabits in (1, 10, 100))
        print(f"{workers:7}{rows:12}{sent / 1e6:8.1f}{times}")


def work(fields, ids, steps):
    """Trains as this process alone or as one worker: a round for each line read, times printed."""
    import lstm
    from ptb import cluster, rnn, run
    from ptb.terminal.quiet import tf

    tf.disable_eager_execution()
    config = types.SimpleNamespace(**fields)
    with cluster.joining(os.environ.get("TF_CONFIG", ""), patience=600.0):
        worker = cluster.this_worker()
        config, data = cluster.own_part(config, np.load(ids))
        run.make_deterministic(1)
        initializer = rnn.random_uniform_initializer(-config.init_scale, config.init_scale)
        with tf.variable_scope("Model", initializer=initializer):
            model = lstm.PTBModel(True, config, lstm.PTBInput(config, data, "Input"))
            initialize = tf.global_variables_initializer()
        with tf.Session(worker.target, config=worker.options()) as session:
            session.run(initialize)
            worker.spread(session, tf.global_variables())
            model.assign_lr(session, 0.1)
            for _ in sys.stdin:
                times = [time.perf_counter()]

                def tell(*_):
                    worker.agree(None, False)
                    times.append(time.perf_counter())  # noqa: B023

                lstm.run_epoch(session, model, model.train_op, follow=run.Follower(tell))
                print(*(f"{1e3 * s:.3f}" for s in np.diff(times)[WARM_UP:]), flush=True)


class Contender:
    """Processes that train together: each with its cores, and a word of what they have done."""

    def __init__(self, config, rows, cores, ids):
        """Starts a process for each set of cores; `rows` is the batch_size of all together."""
        from ptb import launcher

        fields = {**config, "batch_size": rows}
        addresses = launcher.free_addresses(len(cores))
        self.processes = []
        for index, own in enumerate(cores):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            self.processes.append(subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, own)), sys.executable, __file__, "--work",
                 json.dumps(fields), "--ids", ids],
                env={**os.environ, "TF_CONFIG": json.dumps(task),
                     "TF_NUM_INTEROP_THREADS": str(len(own))},
                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            ))
        self.milliseconds = []
        self.words = rows * config["num_steps"]

    def run_round(self):
        """Returns the milliseconds of each counted step of a round, of the first process."""
        for process in self.processes:
            process.stdin.write("\n")
            process.stdin.flush()
        lines = [process.stdout.readline() for process in self.processes]
        while lines[0].startswith("Worker "):  # It says which port is open.
            lines = [process.stdout.readline() for process in self.processes]
        if not all(lines):
            sys.exit("a process failed; see above")
        return [float(word) for word in lines[0].split()]


def bytes_on_loopback():
    """Returns how many bytes have been sent on the loopback interface so far."""
    for line in pathlib.Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    return 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="small", help="small, medium, large or one you added")
    parser.add_argument("--data_path", default="simple-examples/data", help="folder of the corpus")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a round")
    parser.add_argument("--only", nargs="+", help="some contenders only: alone workers …")
    parser.add_argument("--paper", action="store_true", help="print the formula's table, no more")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--ids", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.ids, args.steps + WARM_UP)
        return

    import configs
    from ptb import dataset, reader
    from ptb.terminal.command_line import POSITIVE, WHOLE, get_config

    config = get_config(args.config, configs)
    if args.paper:
        on_paper(config, args.config)
        return
    fields = {name: getattr(config, name) for name in (*WHOLE, *POSITIVE)}
    corpus = dataset.find_corpus(args.data_path, explicit=args.data_path != "simple-examples/data")
    data = reader.ptb_raw_data(corpus.folder, config.vocab_size)[0]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < args.workers:
        parser.error(f"--workers {args.workers}: there are {len(cores)} cores")
    rows, single = config.batch_size, [[core] for core in cores[: args.workers]]
    plans = {
        "alone": (rows // args.workers, single[:1]),
        "workers": (rows, single),
        "process": (rows, [cores[: args.workers]]),
        "larger": (rows * args.workers, single),
    }
    with tempfile.TemporaryDirectory() as folder:
        contenders = {}
        for name in args.only or plans:
            total, own = plans[name]
            ids = os.path.join(folder, f"{name}.npy")
            steps = args.steps + WARM_UP
            np.save(ids, np.resize(data, total * (steps * config.num_steps + 1)))
            contenders[name] = Contender(fields, total, own, ids)
        sent = []
        for round_ in range(args.rounds + 1):
            for name, contender in contenders.items():
                print(f"round {round_} of {args.rounds}: {name}", end="\033[K\r", file=sys.stderr)
                before = bytes_on_loopback()
                times = contender.run_round()
                if round_ > 0:  # round 0 warms up
                    contender.milliseconds += times
                    if name == "workers":
                        sent.append((bytes_on_loopback() - before) / (args.steps + WARM_UP))
        for contender in contenders.values():
            for process in contender.processes:
                process.stdin.close()
                process.wait()

    rounds = f"{args.rounds} rounds of {args.steps} steps"
    print(f"{args.config}, {args.workers} workers, {rounds}\033[K")
    print(f"{'':12}{'ms/step':>9}{'min':>9}{'words/s':>9}")
    medians = {name: np.median(c.milliseconds) for name, c in contenders.items()}
    for name, c in contenders.items():
        speed = c.words / medians[name] * 1e3
        print(f"{name:12}{medians[name]:9.1f}{min(c.milliseconds):9.1f}{speed:9.0f}")
    if {"alone", "workers"} <= medians.keys():
        print(f"workers / alone: {medians['workers'] / medians['alone']:.2f}")
    if sent:
        formula = args.workers * sent_bytes(config, args.workers)
        print(f"bytes a step: {np.median(sent):,.0f} on the wire, {formula:,.0f} by formula")


if __name__ == "__main__":
    main()
