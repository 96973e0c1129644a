"""Times the pass over the test set: all of it at once, and one word at a time as the original.

    python tests/benchmarks/evaluation_speed.py --config small --model Out/small

Prints seconds, perplexities and the ratio. Both read the same words with the same weights: those of
the last checkpoint in the folder --model, or random ones. Let nothing else run meanwhile.
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import configs  # noqa: E402 (found through the line above)
import lstm  # noqa: E402
from ptb import dataset, reader, rnn  # noqa: E402
from ptb.evaluate import TextInput, text_perplexity  # noqa: E402
from ptb.terminal.command_line import get_config  # noqa: E402
from ptb.terminal.quiet import tf  # noqa: E402


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="small", help="small, medium, large or one you added")
    parser.add_argument("--data_path", default="simple-examples/data", help="folder of the corpus")
    parser.add_argument("--model", help="folder of a trained model of that configuration")
    parser.add_argument("--rounds", type=int, default=3, help="passes of each kind, in turn")
    parser.add_argument("--words", type=int, help="only the first words of the test set")
    args = parser.parse_args()

    tf.disable_eager_execution()
    config, one_word = get_config(args.config, configs), get_config(args.config, configs)
    one_word.batch_size = one_word.num_steps = 1
    corpus = dataset.find_corpus(args.data_path, explicit=args.data_path != "simple-examples/data")
    ids = reader.ptb_raw_data(corpus.folder, config.vocab_size)[2][: args.words]
    initializer = rnn.random_uniform_initializer(-config.init_scale, config.init_scale)
    with tf.variable_scope("Model", initializer=initializer):
        whole = lstm.PTBModel(False, config, TextInput(config, ids, "whole"))
    with tf.variable_scope("Model", reuse=True):
        single = lstm.PTBModel(False, one_word, lstm.PTBInput(one_word, ids, "single"))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        if args.model:
            models = sorted(pathlib.Path(args.model).glob("checkpoint-*/model.ckpt.index"))
            if not models:
                parser.error(f"--model {args.model}: no checkpoint there")
            path = str(models[-1]).removesuffix(".index")
            tf.train.Saver(tf.trainable_variables()).restore(session, path)
        times = {whole: [], single: []}
        results = {}
        for _ in range(args.rounds):
            for model, run in (whole, text_perplexity), (single, lstm.run_epoch):
                start = time.perf_counter()
                results[model] = run(session, model)
                times[model].append(time.perf_counter() - start)

    print(f"{args.config}, {len(ids) - 1:,} targets, {args.rounds} rounds")
    for model, name in (whole, "whole text"), (single, "one word at a time"):
        seconds = sorted(times[model])[args.rounds // 2]
        print(f"{name:20}{seconds:8.2f} seconds   perplexity {results[model]:.6f}")
    ratios = sorted(a / b for a, b in zip(times[single], times[whole]))
    difference = abs(results[whole] / results[single] - 1)
    print(f"{ratios[args.rounds // 2]:.1f} times faster, perplexity within {difference:.1e}")


if __name__ == "__main__":
    main()
