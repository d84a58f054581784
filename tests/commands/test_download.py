"""Fetching published files from a local server: whole, taken up again, damaged, broken off,
unreachable.
"""

import hashlib
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers import run

from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.weights import PUBLIC, PublicFile
from utils.tools import download

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`, with byte ranges if `server.ranges`, at most `server.limit` bytes an
    answer.
    """

    def do_GET(self) -> None:
        content, asked = self.server.content, self.headers.get("Range")
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        self.server.starts.append(start)
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.limit])

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content, running.ranges, running.limit, running.starts = (
            CONTENT,
            True,
            len(CONTENT),
            [],
        )
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def public(server: ThreadingHTTPServer, sha256: str = SHA256) -> PublicFile:
    return PublicFile("weights.pt", f"http://127.0.0.1:{server.server_port}/weights.pt", sha256)


def test_a_file_arrives_whole_and_is_then_left_alone(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    for _ in range(2):
        path = download.fetch(public(server, SHA256[:8]), tmp_path / "new")
        assert path == tmp_path / "new" / "weights.pt" and path.read_bytes() == CONTENT
    assert server.starts == [0]
    assert [file.name for file in path.parent.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("there", [len(CONTENT) // 2, len(CONTENT)])
def test_what_is_there_is_not_fetched_again(
    server: ThreadingHTTPServer, tmp_path: Path, there: int, ranges: bool
) -> None:
    server.ranges = ranges
    (tmp_path / "weights.pt.partial").write_bytes(CONTENT[:there])
    assert download.fetch(public(server), tmp_path).read_bytes() == CONTENT
    assert server.starts == [there if ranges else 0]


def test_a_broken_off_transfer_is_taken_up_by_the_next_call(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    server.limit = 300_000
    for _ in range(4):
        with pytest.raises(UserError, match="run this command again"):
            download.fetch(public(server), tmp_path)
    assert download.fetch(public(server), tmp_path).read_bytes() == CONTENT
    assert server.starts == [0, 300_000, 600_000, 900_000, 1_200_000]


def test_a_wrong_checksum_leaves_nothing_behind(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    server.content = b"x" + CONTENT[1:]
    with pytest.raises(UserError, match="deleted"):
        download.fetch(public(server), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_under_the_right_name_is_replaced(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt").write_bytes(b"something else")
    assert download.fetch(public(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("problem", ["no server", "no file"])
def test_an_unreachable_address_is_one_sentence_that_names_it(
    server: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: str,
) -> None:
    file = public(server)
    if problem == "no server":
        file = PublicFile("weights.pt", "http://127.0.0.1:9/weights.pt", SHA256)
    else:
        monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(404))
    monkeypatch.setattr(download, "PUBLIC", {"clip": file})
    monkeypatch.setattr(sys, "argv", ["download", "--folder", str(tmp_path / "weights")])
    with pytest.raises(SystemExit) as stopped:
        command(download.main)()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert (
        len(lines) == 1
        and file.address in lines[0]
        and str(tmp_path / "weights" / "weights.pt") in lines[0]
    )


def test_an_unknown_name_is_refused_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["download", "clip", "dalle"])
    monkeypatch.setattr(download, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(UserError, match="dalle .* clip, deit"):
        download.main()


# the Hub

CONFIG = b'{"model_type": "clip"}'
CONFIG_SHA1 = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
MODEL = PUBLIC["clip"].hub


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does: small files itself, large ones by a redirect to a storage that has
    an ETag of its own; a model's old name leads to the new one.
    """

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        home = f"/{MODEL}/resolve/main"
        if self.path == "/storage":
            return self.send(200, self.server.content, ETag='"of-the-storage"')
        if self.path.startswith("/old/name/"):
            return self.send(307, Location=self.path.replace("/old/name", f"/{MODEL}"))
        if self.path == f"{home}/config.json":
            return self.send(200, CONFIG, ETag=f'W/"{CONFIG_SHA1}"')
        if self.path == f"{home}/model.safetensors":
            place = f"http://localhost:{self.server.server_port}/storage"
            return self.send(302, Location=place, **{self.server.header: f'"{SHA256}"'})
        return self.send(404)

    def send(self, status: int, content: bytes = b"", **headers: str) -> bytes:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        running.content, running.header = CONTENT, "X-Linked-Etag"
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}/")
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.mark.parametrize("name", [MODEL, "old/name"])
def test_a_model_comes_from_the_hub_with_its_configuration(
    name: str, hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    folder = download.fetch_from_hub(name, tmp_path)
    assert folder == tmp_path / name.partition("/")[2]
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert (folder / "config.json").read_bytes() == CONFIG
    assert len(list(folder.iterdir())) == 2


def test_what_the_hub_says_of_a_file_decides(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match=r"model.safetensors gave a file .* was deleted"):
        download.fetch_from_hub(MODEL, tmp_path)
    folder = tmp_path / MODEL.partition("/")[2]
    assert [file.name for file in folder.iterdir()] == ["config.json"]

    hub.header = "X-Other"
    with pytest.raises(UserError, match=r"model.safetensors comes without a checksum"):
        download.fetch_from_hub(MODEL, tmp_path)


def test_a_model_that_the_hub_has_not_is_one_sentence(
    hub: ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = {"deit": PublicFile("a.pth", "", "", "nobody/nothing"), "clip": PUBLIC["clip"]}
    monkeypatch.setattr(download, "PUBLIC", gone)
    flags = ["--from", "hub", "--folder", tmp_path]
    assert run(command(download.main), "clip", *flags) == 0
    folder = tmp_path / MODEL.partition("/")[2]
    assert capsys.readouterr().out.splitlines()[-1] == f"--clip_path {folder}"
    assert run(command(download.main), "deit", *flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and "nobody/nothing/resolve/main/config.json cannot be" in lines[0]
