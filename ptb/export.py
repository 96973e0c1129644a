"""A trained model leaves the project: as a SavedModel for serving, or as word vectors.

    python -m ptb.export saved_model Out/small served/small/1
    python -m ptb.export vectors Out/small vectors.txt
    python -m ptb.export vectors Out/small - | head
    python -m ptb.export vectors Out/small --projector projector

A model is what ptb.language_model takes: a run's folder, or a checkpoint of the PTB tutorial with
--data_path; --best takes the epoch of a run with the lowest valid perplexity. A SavedModel may be
the average of several, with --average_with. What is written here is read without this project: a
SavedModel by TensorFlow and by TensorFlow Serving, vectors by gensim and many others, the
projector's files by TensorBoard.
"""

import contextlib
import functools
import gzip
import os
import sys

from ptb import reader, rnn
from ptb.language_model import MATRICES, model_of
from ptb.saving import files
from ptb.terminal import command_line
from ptb.terminal.errors import UserError
from ptb.terminal.quiet import session_config, tf

NO_TEXT = (".bz2", ".xz", ".zst", ".zip", ".7z", ".bin", ".npy", ".npz")  # formats of other vectors


def write_saved_model(model, folder):
    """Writes a LanguageModel as a SavedModel that answers to strings, for TensorFlow alone.

    It has two signatures. `text` is a batch of strings, [n], of any length each; every one is read
    on its own from `<eos>` on, its words split and looked up as LanguageModel does it.

      next_words(text, top_k): `words` [n, k] and their `probabilities` [n, k], the likeliest first,
        where top_k is a number and k is top_k or the size of the vocabulary, if that is smaller. A
        text without words is the beginning of a line. It is `serving_default` as well, which a
        client gets who names no signature.
      log_prob(text): `log_prob` [n], the log probability (nats) of each sentence, its closing
        `<eos>` included.

    A word outside of a vocabulary without `<unk>`, or a top_k below 1, is an invalid argument.

    The numbers are those of LanguageModel up to rounding. Everything is computed in float32, also
    where the run was trained in 16 bits.

    Raises:
      UserError: the folder is not empty, TensorFlow would take its name for a pattern, or it cannot
        be written (and nothing of it is left).
    """
    path = os.path.abspath(files.local_path(folder))
    if files.PATTERN.search(path):
        raise UserError(
            f"{path}: TensorFlow takes this for a pattern and would not find the model; name a "
            "folder without brackets, stars, question marks and backslashes"
        )
    weights = model.weights()
    folder = _new_folder(folder)
    with tf.Graph().as_default(), tf.Session(config=session_config()) as session:
        signatures = _build(model.vocabulary, model.configs)
        variables = tf.trainable_variables()
        values = {variable.initial_value: weights[variable.op.name] for variable in variables}
        session.run([variable.initializer for variable in variables], values)
        with _whole(folder) as unfinished:
            builder = tf.saved_model.Builder(unfinished)
            builder.add_meta_graph_and_variables(
                session, [tf.saved_model.SERVING], signatures, main_op=tf.tables_initializer(),
                # Whoever serves it decides where it is computed; the variables are one file.
                clear_devices=True, saver=tf.train.Saver(variables),
            )
            builder.save()


def write_vectors(model, path, matrix="softmax_w"):
    """Writes the vectors of a LanguageModel's words to a file in word2vec's text format.

    The first line has the number of words and that of each vector's numbers; then there is a line
    for each word, by id: the word and its numbers, with single spaces between them.

    Args:
      model: a LanguageModel.
      path: the file; with the ending .gz it is compressed by gzip, and `-` is stdout.
      matrix: see LanguageModel.vectors.

    Raises:
      UserError: there is no such matrix, or the file cannot be written (and is what it was before)
        or has the ending of another format.
    """
    path = _vectors_path(path)
    vectors = model.vectors(matrix)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(files.output(path))
        if path.lower().endswith(".gz"):
            # Without a name and a time, the same vectors are the same bytes.
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        file.write(b"%d %d\n" % vectors.shape)
        for word, vector in zip(model.vocabulary, vectors):
            file.write(" ".join([word, *vector.astype(str)]).encode() + b"\n")


def write_projector(model, folder, matrix="softmax_w"):
    """Writes the vectors of a LanguageModel's words into a folder for TensorBoard's projector.

    `vectors.tsv` has the numbers of a word in each line, and `metadata.tsv` the words, without a
    header, as it has one column only. `projector_config.pbtxt` says so to TensorBoard.

    Raises:
      UserError: there is no such matrix, or the folder is not empty or cannot be written (and
        nothing of it is left).
    """
    vectors = model.vectors(matrix)
    folder = _new_folder(folder)
    with _whole(folder) as unfinished:
        os.mkdir(unfinished)
        with _open(os.path.join(unfinished, "vectors.tsv")) as file:
            for vector in vectors:
                print(*vector.astype(str), sep="\t", file=file)
        with _open(os.path.join(unfinished, "metadata.tsv")) as file:
            for word in model.vocabulary:
                # The projector leaves out a line that seems empty to it, such as a no-break space,
                # and would give all later vectors the wrong words.
                print(word if word.strip() else ascii(word), file=file)
        with _open(os.path.join(unfinished, "projector_config.pbtxt")) as file:
            print('embeddings { tensor_name: "words" tensor_path: "vectors.tsv" '
                  'metadata_path: "metadata.tsv" }', file=file)


def _build(vocabulary, configs):
    """Builds the model that is served in the default graph; returns {name: its signature}.

    Args:
      vocabulary, configs: those of the LanguageModel.
    """
    words = tf.constant(vocabulary)
    ids = tf.range(len(vocabulary), dtype=tf.int64)
    unk = vocabulary.index(reader.UNK) if reader.UNK in vocabulary else -1
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(words, ids), unk)
    network = rnn.average([rnn.Network(config, scope=scope) for scope, config in configs.items()])
    with tf.name_scope("next_words"):
        text = tf.placeholder(tf.string, [None], "text")
        top_k = tf.placeholder(tf.int32, [], "top_k")
        # A prompt starts from `<eos>`, which it may have itself.
        prompts = tf.strings.regex_replace(
            _spaced_words(text), f"^( {reader.EOS})? ", f" {reader.EOS} "
        )
        inputs, is_word = _steps(prompts, table)

        def read_word(state, step):
            read = network.step(step[0], state)
            return tf.nest.map_structure(functools.partial(tf.where, step[1]), read, state)

        state = tf.foldl(read_word, (inputs, is_word), network.zero_state(tf.size(text)))
        probabilities = tf.nn.softmax(network.logits(network.output(state)))
        is_right = tf.debugging.assert_positive(top_k, message="top_k must be at least 1")
        with tf.control_dependencies([is_right]):
            k = tf.minimum(top_k, len(vocabulary))
        # A checkpoint of the tutorial may have more rows than there are words.
        probabilities, best = tf.nn.top_k(probabilities[:, : len(vocabulary)], k)
        probabilities = tf.cast(probabilities, tf.float32)
        next_words = _signature(
            {"text": text, "top_k": top_k},
            {"words": tf.gather(words, best), "probabilities": probabilities},
        )

    with tf.name_scope("log_prob"):
        text = tf.placeholder(tf.string, [None], "text")
        # A sentence is closed by one `<eos>`, which it may have itself.
        sentences = tf.strings.regex_replace(
            _spaced_words(text), f"( {reader.EOS})? $", f" {reader.EOS} "
        )
        inputs, is_word = _steps(tf.strings.join([f" {reader.EOS}", sentences]), table)

        def add_log_prob(previous, step):
            state = network.step(step[0], previous[1])
            loss = network.loss(network.output(state), step[1], fast=False)
            loss = tf.where(step[2], loss, tf.zeros_like(loss))
            return previous[0] - tf.cast(loss, tf.float64), state

        zero_state = network.zero_state(tf.size(text))
        log_prob, _ = tf.foldl(
            add_log_prob, (inputs[:-1], inputs[1:], is_word[1:]),
            (tf.zeros([tf.size(text)], tf.float64), zero_state),
        )
        log_prob = _signature({"text": text}, {"log_prob": log_prob})
    default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    return {default: next_words, "next_words": next_words, "log_prob": log_prob}


def _spaced_words(text):
    """Returns the words of each string, as reader.split_words finds them, in one string.

    A space stands before and after each word. A string without words becomes a space.
    """
    text = tf.strings.regex_replace(text, "\n", f" {reader.EOS} ")
    return tf.strings.regex_replace(
        tf.strings.join([" ", text, " "]), f"[{reader.SPACE}]+", " "
    )


def _steps(lines, table):
    """Returns what is read in each time step: (ids, whether they are of a word), [steps, n] each.

    Args:
      lines: [n] strings with spaces between, before and after their words.
      table: the ids of the words, -1 for one that cannot be read.
    """
    # Without the separator, what counts as white space would depend on the system's language.
    words = tf.strings.split(tf.strings.strip(lines), " ", result_type="RaggedTensor").to_tensor()
    words = tf.transpose(words)
    is_word = tf.not_equal(words, "")
    ids = table.lookup(words)
    ids = tf.where(is_word, ids, tf.zeros_like(ids))
    message = f"a word is not in the vocabulary, and there is no {reader.UNK} to stand for it"
    with tf.control_dependencies([tf.debugging.assert_non_negative(ids, message=message)]):
        return tf.identity(ids), is_word


def _signature(inputs, outputs):
    """Returns the signature of what computes outputs from inputs, {name: tensor} each."""
    inputs, outputs = (
        {
            name: tf.TensorInfo(
                name=tensor.name, dtype=tensor.dtype.as_datatype_enum,
                tensor_shape=tensor.shape.as_proto(),
            )
            for name, tensor in tensors.items()
        }
        for tensors in (inputs, outputs)
    )
    return tf.saved_model.build_signature_def(
        inputs, outputs, tf.saved_model.PREDICT_METHOD_NAME
    )


def _new_folder(path, make=True):
    """Returns the path of a folder that can be written; the folders above it are made, if asked to.

    Raises UserError where it is not empty, is a file, or they cannot be made.
    """
    path = files.local_path(path)
    if path in files.STDOUT:
        raise UserError(f"{path} is stdout, which takes no folder; name one")
    try:
        if os.path.exists(path):
            if os.listdir(path):
                raise UserError(f"{path} is not empty; name another folder")
            if os.path.samefile(path, os.curdir):  # Another would take its place.
                raise UserError(f"{path} is the current folder; name a new one")
        if make:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def _vectors_path(path):
    """Returns the path of a file for vectors, where that can be written; UserError where not."""
    path = files.local_path(path)
    if path.lower().endswith(NO_TEXT):
        ending = os.path.splitext(path)[1]
        raise UserError(f"{path}: vectors are not written as {ending}; name a .txt or a .txt.gz")
    files.check_writable(path)
    return path


@contextlib.contextmanager
def _whole(path):
    """Yields another path to write at, see files.whole; UserError where that fails."""
    try:
        with files.whole(path) as unfinished:
            yield unfinished
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write {path}: {files.reason_of(error)}") from error


def _open(path):
    """Opens a text file for writing, with the same bytes on every system."""
    return open(path, "w", encoding="utf-8", newline="\n")


def _saved_model(args):
    _new_folder(args.folder, make=False)  # Nobody waits for models to hear what is wrong there.
    with model_of(args) as model:
        write_saved_model(model, args.folder)
    print(f"SavedModel in {args.folder}")


def _vectors(args):
    if args.file is None and args.projector is None:
        raise UserError("nowhere to write to: name a file, or a folder with --projector")
    if None not in (args.file, args.projector) and files.is_within(args.file, args.projector):
        raise UserError(f"{args.file} would be in the projector's folder; name another file")
    said = sys.stdout
    if args.file is not None:
        said = files.said_beside(_vectors_path(args.file))
    if args.projector is not None:
        _new_folder(args.projector, make=False)
    with model_of(args) as model:
        if args.projector is not None:
            write_projector(model, args.projector, args.matrix)
            print(f"Files for TensorBoard's projector in {args.projector}", file=said)
        if args.file is not None:
            write_vectors(model, args.file, args.matrix)
            print(f"Word vectors in {args.file}", file=said)


def _parser():
    parser = command_line.Parser(prog="python -m ptb.export", description=__doc__)
    saved_model = parser.command(
        _saved_model, "Writes a SavedModel, which TensorFlow Serving serves."
    )
    saved_model.add_model()
    saved_model.add_argument("folder", help="the folder to write; it must be new or empty")

    vectors = parser.command(_vectors, "Writes the words' vectors in word2vec's text format.")
    vectors.add_model(of_one=True)
    vectors.add_argument("file", nargs="?", help="the file to write: .gz is gzip, - is stdout")
    vectors.add_argument("--projector", metavar="FOLDER",
                         help="a folder to write for TensorBoard's projector; new or empty")
    vectors.add_argument("--matrix", choices=MATRICES, default="softmax_w",
                         help="whose vectors to write (softmax_w)")
    return parser


def main(argv=None):
    """Runs the command line of this module."""
    with command_line.errors_in_one_line("export.py"):
        args = _parser().parse_args(argv)
        args.function(args)


if __name__ == "__main__":
    main()
