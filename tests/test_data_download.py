"""Downloads from a server on this machine: whole, altered, cut short, missing, and nobody there."""

import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cifar_batches
import pictures
import pytest

from bench import cli, plan
from bench.datasets import cifar10, tinyimagenet
from bench.interface import UsageError

LOADERS = {"cifar10": cifar10, "tinyimagenet": tinyimagenet}


class Server(http.server.ThreadingHTTPServer):
    """Serves one content at every address but `/missing`; at `/short` it hangs up before the end."""

    content = b""
    asked = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.path == "/missing":
            self.send_error(404, "Not Found")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        stop = len(self.server.content) // 2 if self.path == "/short" else None
        self.wfile.write(self.server.content[:stop])

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def packed_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(cifar10, "MD5", cifar_batches.write(root))
    cifar_batches.pack(root)
    return (root / cifar10.SOURCE.file).read_bytes()


def packed_tinyimagenet(root: Path, _: pytest.MonkeyPatch) -> bytes:
    pictures.pack(root / "zip", tinyimagenet.SOURCE.folder, pictures.tiny())
    return (root / "zip").read_bytes()


@pytest.fixture(params=LOADERS)
def name(request, server, tmp_path, monkeypatch) -> str:
    """A data set whose small archive the server offers; `data` is where it belongs."""
    make = {"cifar10": packed_cifar10, "tinyimagenet": packed_tinyimagenet}[request.param]
    server.content = make(tmp_path / "made", monkeypatch)
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("UNLEARNING_DOWNLOAD", "1")
    offer(monkeypatch, request.param, f"http://127.0.0.1:{server.server_port}/archive", md5_of(server.content))
    return request.param


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def offer(monkeypatch: pytest.MonkeyPatch, name: str, url: str, md5: str | None = None) -> None:
    source = LOADERS[name].SOURCE
    monkeypatch.setattr(LOADERS[name], "SOURCE", replace(source, url=url, md5=md5 or source.md5))


def refused(name: str, root: Path) -> str:
    """The one line of a failed download, which says what to do; nothing is left in the folder."""
    with pytest.raises(UsageError) as caught:
        plan.load_dataset(name)
    line, source = str(caught.value), LOADERS[name].SOURCE
    assert "\n" not in line
    assert line.startswith(f"cannot download {source.title} (")
    for part in (source.url, source.file, source.md5, str(root), "--data-dir", "--preset digits needs no download"):
        assert part in line
    assert "--download" not in line
    assert list(root.iterdir()) == []
    return line


def test_a_download_serves_and_is_not_repeated(name, server, tmp_path, capsys):
    first = plan.load_dataset(name)
    assert capsys.readouterr().err.count("downloading ") == 1
    assert (tmp_path / "data" / LOADERS[name].SOURCE.file).read_bytes() == server.content
    assert plan.load_dataset(name).digest == first.digest
    assert server.asked == 1


def test_an_altered_archive_is_refused_with_both_checksums(name, server, tmp_path, monkeypatch):
    published, server.content = md5_of(server.content), server.content[:-9] + b"\0" * 9
    line = refused(name, tmp_path / "data")
    assert published in line and md5_of(server.content) in line


@pytest.mark.parametrize(("path", "reason"), [("short", "IncompleteRead"), ("missing", "404 Client Error")])
def test_broken_transfers_are_refused(path, reason, name, server, tmp_path, monkeypatch):
    offer(monkeypatch, name, f"http://127.0.0.1:{server.server_port}/{path}")
    assert reason in refused(name, tmp_path / "data")


def test_nobody_listening_is_refused(name, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        offer(monkeypatch, name, f"http://127.0.0.1:{free.getsockname()[1]}/archive")
        assert "refused" in refused(name, tmp_path / "data")


@pytest.mark.parametrize("value", [None, "", "0"])
def test_nothing_is_downloaded_unasked(value, name, server, monkeypatch):
    monkeypatch.delenv("UNLEARNING_DOWNLOAD")
    if value is not None:
        monkeypatch.setenv("UNLEARNING_DOWNLOAD", value)
    with pytest.raises(
        UsageError, match=r"is not in the folder .* or add --download \((170|240) MB\); --preset digits"
    ):
        plan.load_dataset(name)
    assert server.asked == 0


def test_a_folder_that_cannot_be_made_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(UsageError, match="cannot make the data folder .*; choose another with --data-dir"):
        plan.load_dataset(name)


def test_a_missing_pooch_is_said(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(UsageError, match="it takes pooch, which is not installed: pip install pooch"):
        plan.load_dataset(name)


@pytest.mark.parametrize("verb", [[], ["tune"]])
def test_the_flag_reaches_the_loader(verb, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNLEARNING_DATA", "x")  # so that what the flags set is undone
    monkeypatch.setenv("UNLEARNING_DOWNLOAD", "")
    offer(monkeypatch, "cifar10", f"http://127.0.0.1:{server.server_port}/missing")
    words = [*verb, "--dataset", "cifar10", "--data-dir", str(tmp_path), "--scenario", "class_removal", "--download"]
    assert cli.main(words) == cli.USAGE
    assert "error: cannot download CIFAR-10 (404 Client Error" in capsys.readouterr().err
    assert server.asked == 1


def test_the_archives_made_here_are_archives(tmp_path, monkeypatch):
    assert zipfile.is_zipfile(io.BytesIO(packed_tinyimagenet(tmp_path, monkeypatch)))
    assert tarfile.is_tarfile(io.BytesIO(packed_cifar10(tmp_path, monkeypatch)))
