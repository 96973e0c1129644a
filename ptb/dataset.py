"""Finds the corpus: PTB on disk, else downloaded and verified, else the sample that comes along."""

import hashlib
import http.client
import io
import os
import tarfile
import time
import typing
import urllib.request
import zlib

from ptb import files
from ptb.progress import Progress
from ptb.reader import corpus_files

SIMPLE_EXAMPLES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "simple-examples")
URLS = (
    "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
    "https://dataset.bj.bcebos.com/imikolov%2Fsimple-examples.tgz",
)
MD5 = "30177ea32e27c525793142b6bf2c8e2d"
FILES = {  # {name of a file: (its size in bytes, its SHA-256 checksum)}
    "ptb.train.txt": (
        5101618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"
    ),
    "ptb.valid.txt": (
        399782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"
    ),
    "ptb.test.txt": (
        449945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"
    ),
}
MAX_BYTES = 64_000_000  # what is longer is not the archive, which has 35 million bytes
TIMEOUT = 5  # seconds that a server may take to answer, and between two pieces
PATIENCE = 30  # seconds, after which a download must have been faster than MIN_SPEED
MIN_SPEED = 20_000  # bytes/s, at which the archive takes half an hour


class Corpus(typing.NamedTuple):
    """A folder with the three files, and what they are: "PTB", "sample" or "own"."""

    folder: str
    kind: str


class DownloadError(Exception):
    """What came is not the archive; the message says why."""


def find_corpus(data_path, explicit):
    """Returns the Corpus to train on, and prints what a reader of the results must know of it.

    Args:
      data_path: a folder.
      explicit: the user named it: it is used as it is, even where files are missing. Else, where it
        has none of the files, PTB is downloaded into it, and failing that the sample is returned.
    """
    there = list(map(os.path.exists, corpus_files(data_path)))
    if explicit or any(there):
        if is_ptb(data_path):
            return Corpus(data_path, "PTB")
        if all(there):  # Otherwise the reader will name the file that is missing.
            print(f"{data_path} is not the PTB corpus: published figures do not apply.")
        return Corpus(data_path, "own")
    if download(data_path):
        return Corpus(data_path, "PTB")
    print(
        "PTB could not be downloaded: training on the sample corpus, whose perplexities compare "
        "with nothing published.\nTo put PTB there by hand, see simple-examples/README.md."
    )
    return Corpus(os.path.join(SIMPLE_EXAMPLES, "sample"), "sample")


def is_ptb(folder):
    """Returns whether the three files are there and PTB's, to the byte."""
    for name, (size, sha256) in FILES.items():
        path = os.path.join(folder, name)
        try:
            if os.path.getsize(path) != size or files.sha256_of(path) != sha256:
                return False
        except OSError:
            return False
    return True


def download(folder):
    """Downloads PTB into a folder that is missing or empty; returns whether that worked.

    The folder appears with all three files, verified, or not at all. A failure is printed, one line
    for each address tried.
    """
    for url in URLS:
        print(f"Downloading PTB (35 MB) from {url}")
        try:
            unpack(fetch(url), folder)
            return True
        except DownloadError as error:
            reason = error
        except (tarfile.TarError, EOFError, zlib.error) as error:
            reason = f"not a whole .tgz archive: {error}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
        print(f"No PTB from there: {reason}")
    return False


def fetch(url):
    """Returns the archive at an address, its MD5 verified; shows progress on a terminal.

    Raises:
      DownloadError: it is too large, comes too slowly, or is not the archive.
      OSError, http.client.HTTPException, ValueError: the connection failed.
    """
    parts, size, start = [], 0, time.monotonic()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        total = int(response.headers.get("Content-Length", 0))
        with Progress("Downloading", total) as progress:
            # read1 returns what has come. read would wait until it has all that it was asked for,
            # and a server that sends a little every few seconds would never be given up.
            while part := response.read1(1 << 16):
                parts.append(part)
                size += len(part)
                seconds = time.monotonic() - start
                if max(size, total) > MAX_BYTES:
                    raise DownloadError(f"larger than {MAX_BYTES:,} bytes")
                if seconds > PATIENCE and size < MIN_SPEED * seconds:
                    raise DownloadError(f"only {size:,} bytes in {seconds:.0f} seconds")
                progress.update(size)
    if size < total:
        raise DownloadError(f"only {size:,} of {total:,} bytes came")
    archive = b"".join(parts)
    if hashlib.md5(archive, usedforsecurity=False).hexdigest() != MD5:
        raise DownloadError("wrong MD5 checksum")
    return archive


def unpack(archive, folder):
    """Makes `folder` with the three files out of the archive's bytes, verified.

    Nothing else is unpacked, and no name or link in the archive decides where anything goes.

    Raises:
      DownloadError: a file is missing, is not a plain file, or is not PTB's.
      OSError: no space, no permission, or `folder` is not empty.
      tarfile.TarError, EOFError, zlib.error: the archive is damaged.
    """
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            folder_name, _, name = member.name.removeprefix("./").rpartition("/")
            if folder_name == "simple-examples/data" and name in FILES:
                size, sha256 = FILES[name]
                if not member.isreg() or member.size != size:
                    raise DownloadError(f"{name} in the archive is not PTB's")
                texts[name] = tar.extractfile(member).read()
                if hashlib.sha256(texts[name]).hexdigest() != sha256:
                    raise DownloadError(f"{name}: wrong SHA-256 checksum")
    for name in FILES:
        if name not in texts:
            raise DownloadError(f"no {name} in the archive")

    parent = os.path.dirname(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with files.whole(os.path.join(parent, os.path.basename(folder))) as unfinished:
        os.mkdir(unfinished)
        for name, text in texts.items():
            with open(os.path.join(unfinished, name), "wb") as file:
                file.write(text)
