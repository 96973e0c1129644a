"""Finding the corpus, downloads from a real HTTP server on the loopback address included."""

import contextlib
import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
import time

import pytest

from conftest import ROOT
from ptb import dataset, files
from test_files import System

TEXTS = {name: f" {name} \n".encode() * 2000 for name in dataset.FILES}
PREFIX = "./simple-examples/data/"


def archive(texts=TEXTS, members=(), prefix=PREFIX):
    """Returns the bytes of a .tgz with the texts, and before them the TarInfo members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
        for name, text in texts.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return file.getvalue()


GOOD = archive()


@pytest.fixture(autouse=True)
def small_ptb(monkeypatch):
    """Our texts and archive stand for PTB; no proxy, no long waits, no address to go to."""
    files = {name: (len(text), hashlib.sha256(text).hexdigest()) for name, text in TEXTS.items()}
    monkeypatch.setattr(dataset, "FILES", files)
    monkeypatch.setattr(dataset, "MD5", hashlib.md5(GOOD).hexdigest())
    monkeypatch.setattr(dataset, "MAX_BYTES", 100_000)
    monkeypatch.setattr(dataset, "TIMEOUT", 1)
    monkeypatch.setattr(dataset, "PATIENCE", 0.5)
    monkeypatch.setattr(dataset, "URLS", ())
    for name in "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY":
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    """Serves what a test puts into `routes`, {path: handler function}; `asked` lists the paths."""
    routes, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            with contextlib.suppress(ConnectionError):
                routes[self.path](self)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.routes, httpd.asked = routes, asked
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def send(body, length=None):
    """Returns a handler that sends the bytes and says how many it sends."""

    def handle(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return handle


def send_endlessly(piece, pause):
    """Returns a handler that never ends; what it sends has no announced length."""

    def handle(request):
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(piece)
            request.wfile.flush()
            time.sleep(pause)

    return handle


def hang(request):
    """A handler that says nothing for longer than anyone waits."""
    time.sleep(3)


def redirect(url):
    """Returns a handler that sends elsewhere."""

    def handle(request):
        request.send_response(302)
        request.send_header("Location", url)
        request.end_headers()

    return handle


def assert_ptb(corpus, folder):
    assert corpus == (str(folder), "PTB")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == TEXTS


def test_good_archive(server, tmp_path, monkeypatch):
    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a", server.url + "/b"))
    folder = tmp_path / "simple-examples" / "data"
    assert_ptb(dataset.find_corpus(str(folder), explicit=False), folder)
    assert os.listdir(folder.parent) == ["data"]
    assert server.asked == ["/a"]
    assert_ptb(dataset.find_corpus(str(folder), explicit=False), folder)  # there now
    assert server.asked == ["/a"]


def test_folder_that_is_there_but_empty_is_filled(server, tmp_path, monkeypatch):
    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert_ptb(dataset.find_corpus(str(tmp_path), explicit=False), tmp_path)


def test_members_without_dot_slash(server, tmp_path, monkeypatch):
    body = archive(prefix=PREFIX[2:])
    server.routes["/a"] = send(body)
    monkeypatch.setattr(dataset, "MD5", hashlib.md5(body).hexdigest())
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert_ptb(dataset.find_corpus(str(tmp_path), explicit=False), tmp_path)


BAD = {
    "wrong checksum": (send(GOOD[:-1] + b"!"), "wrong MD5"),
    "truncated": (send(GOOD[:-10], len(GOOD)), f"only {len(GOOD) - 10:,} of {len(GOOD):,} bytes"),
    "too large": (send(b"x", 100_001), "larger than 100,000 bytes"),
    "endless": (send_endlessly(b"x" * 10_000, 0), "larger than 100,000 bytes"),
    "slow": (send_endlessly(b"x", 0.05), "bytes in "),
    "stalled": (hang, "timed out"),
    "not found": (lambda request: request.send_error(404), "Not Found"),
    "garbled length": (send(GOOD, "many"), "invalid literal"),
    "not HTTP": (lambda request: request.wfile.write(b"hello\r\n\r\n"), "hello"),
    "redirect to a file": (redirect("file:///etc/passwd"), "not allowed"),
    "redirect without end": (lambda request: redirect(request.path)(request), "infinite loop"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_download_then_the_mirror(name, server, tmp_path, monkeypatch, capsys):
    handler, reason = BAD[name]
    server.routes.update({"/a": handler, "/b": send(GOOD)})
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a", server.url + "/b"))
    folder = tmp_path / "data"
    assert_ptb(dataset.find_corpus(str(folder), explicit=False), folder)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("No PTB from there: ") and reason in line


def test_redirect_is_followed(server, tmp_path, monkeypatch):
    server.routes.update({"/a": redirect(server.url + "/b"), "/b": send(GOOD)})
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert_ptb(dataset.find_corpus(str(tmp_path), explicit=False), tmp_path)


def test_refused_everywhere_falls_back_to_the_sample(tmp_path, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(dataset, "URLS", (url, url))
    corpus = dataset.find_corpus(str(tmp_path / "data"), explicit=False)
    assert corpus == (str(ROOT / "simple-examples" / "sample"), "sample")
    assert os.listdir(tmp_path) == []
    out = capsys.readouterr().out
    assert out.count("Connection refused") == 2
    assert "training on the sample corpus" in out and "nothing published" in out


def member(name, kind=tarfile.REGTYPE, size=0, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


TRAIN = PREFIX + "ptb.train.txt"
REST = {name: text for name, text in TEXTS.items() if name != "ptb.train.txt"}
LINKS = {"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}


@pytest.mark.parametrize("body, reason", [
    (archive(REST), "no ptb.train.txt in the archive"),
    (archive({**TEXTS, "ptb.test.txt": TEXTS["ptb.test.txt"][:-1]}), "ptb.test.txt in the archive"),
    (archive({**TEXTS, "ptb.test.txt": TEXTS["ptb.test.txt"][::-1]}), "wrong SHA-256"),
    (archive(prefix="./simple-examples/data/../data/"), "no ptb.train.txt"),
    (archive(prefix="/simple-examples/data/"), "no ptb.train.txt"),
    *((archive(REST, [member(TRAIN, kind, target="/etc/passwd")]), "ptb.train.txt in the archive")
      for kind in LINKS.values()),
    (GOOD[: len(GOOD) // 2], "not a whole .tgz archive"),
    (b"not an archive", "not a whole .tgz archive"),
])
def test_archive_that_is_not_ptb_leaves_nothing(
    body, reason, server, tmp_path, monkeypatch, capsys
):
    server.routes["/a"] = send(body)
    monkeypatch.setattr(dataset, "MD5", hashlib.md5(body).hexdigest())  # as if it were the one
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert dataset.find_corpus(str(tmp_path / "data"), explicit=False).kind == "sample"
    assert reason in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


def test_hostile_members_go_nowhere(server, tmp_path, monkeypatch):
    """Beside the three files: paths that climb out, absolute paths, links, a device."""
    outside = tmp_path / "outside"
    body = archive(members=[
        member("../../outside", size=5),
        member("./simple-examples/data/../../../outside", size=5),
        member(str(outside), size=5),
        member("./simple-examples/data/link", tarfile.SYMTYPE, target=str(tmp_path)),
        member("./simple-examples/data/link/outside", size=5),
        member("./simple-examples/data/hard", tarfile.LNKTYPE, target=str(outside)),
        member("./simple-examples/data/device", tarfile.CHRTYPE),
        member("./simple-examples/data/fifo", tarfile.FIFOTYPE),
    ])
    server.routes["/a"] = send(body)
    monkeypatch.setattr(dataset, "MD5", hashlib.md5(body).hexdigest())
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    folder = tmp_path / "inside" / "data"
    assert_ptb(dataset.find_corpus(str(folder), explicit=False), folder)
    assert os.listdir(tmp_path) == ["inside"] and os.listdir(folder.parent) == ["data"]


@pytest.mark.parametrize("error, expected", [
    (OSError(28, "No space left on device"), None),
    (KeyboardInterrupt(), KeyboardInterrupt),
])
@pytest.mark.parametrize("when", ["ptb.valid.txt", "rename"])
def test_full_disk_or_ctrl_c_leaves_nothing(
    when, error, expected, server, tmp_path, monkeypatch, capsys
):
    def fail(*args, **kwargs):
        raise error

    def open_until(path, *args, **kwargs):
        return fail() if str(path).endswith(when) else open(path, *args, **kwargs)

    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    if when == "rename":
        monkeypatch.setattr(files, "os", System(replace=fail))
    else:
        monkeypatch.setattr(dataset, "open", open_until, raising=False)
    with pytest.raises(expected) if expected else contextlib.nullcontext():
        assert dataset.find_corpus(str(tmp_path / "data"), explicit=False).kind == "sample"
        assert "No space left on device" in capsys.readouterr().out
    assert os.listdir(tmp_path) == []


def test_other_files_in_the_folder_stay(server, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    server.routes["/a"] = send(GOOD)
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    assert dataset.find_corpus(str(tmp_path), explicit=False).kind == "sample"
    assert "not empty" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("explicit", [True, False])
def test_own_text_is_used_and_said(explicit, tmp_path, capsys):
    for name in dataset.FILES:
        (tmp_path / name).write_text("my own words\n")
    assert dataset.find_corpus(str(tmp_path), explicit) == (str(tmp_path), "own")
    assert "published figures do not apply" in capsys.readouterr().out


@pytest.mark.parametrize("name", dataset.FILES)
def test_one_changed_byte_is_not_ptb(name, tmp_path):
    for each, text in TEXTS.items():
        (tmp_path / each).write_bytes(text)
    assert dataset.is_ptb(tmp_path)
    (tmp_path / name).write_bytes(b"X" + TEXTS[name][1:])
    assert not dataset.is_ptb(tmp_path)


@pytest.mark.parametrize("there, explicit", [
    ([], True), (["ptb.train.txt"], True), (["ptb.train.txt"], False),
])
def test_explicit_or_incomplete_folder_never_downloads(
    there, explicit, server, tmp_path, monkeypatch, capsys
):
    """What is missing there is the reader's error, which names the file."""
    monkeypatch.setattr(dataset, "URLS", (server.url + "/a",))
    for name in there:
        (tmp_path / name).write_bytes(TEXTS[name])
    assert dataset.find_corpus(str(tmp_path), explicit) == (str(tmp_path), "own")
    assert server.asked == []
    assert capsys.readouterr().out == ""


def test_progress_is_shown_on_a_terminal_only(server, terminal, capsys):
    server.routes["/a"] = send(GOOD)
    terminal()
    assert dataset.fetch(server.url + "/a") == GOOD
    assert "\rDownloading: 100%" in capsys.readouterr().err


def test_real_ptb_is_recognized(shared, monkeypatch):
    monkeypatch.undo()
    assert dataset.is_ptb(shared / "simple-examples" / "data")
    assert not dataset.is_ptb(ROOT / "simple-examples" / "sample")
