"""Fetch the public weights: `python -m utils.tools.download [clip] [deit] [dino] [--folder
weights]`; those that every training needs, clip and deit, if none is named.

They come from their publisher, or with `--from hub` from the Hugging Face Hub, where the same
weights lie as a model's folder.
"""

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.common.disk import put_in_place
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import make_folder, partial_of, sha256_of
from utils.common.parser import Parser
from utils.common.weights import PUBLIC, PublicFile

PIECE = 1 << 20  # bytes read at a time
TIMEOUT = 30  # seconds without an answer
HUB = "https://huggingface.co"
HUB_FILES = ("config.json", "model.safetensors")
MOST_REDIRECTS = 5
SHA256_DIGITS = 64
SHA1_DIGITS = 40


def fetch(public: PublicFile, folder: Path) -> Path:
    """Fetch a published file into `folder`, unless it is there, whole and right; its path.

    Raises UserError when the address cannot be reached, the transfer breaks off, or the SHA-256 is
    not the published one (or does not begin with the published prefix).
    """
    target = folder / public.name
    return _fetch(public.address, target, public.sha256, sha256_of, "add `--from hub`, ")


def fetch_from_hub(model: str, folder: Path) -> Path:
    """Fetch a model's weights and configuration from the Hub into a folder of its name in `folder`;
    that folder's path.

    Each file is checked against the checksum that the Hub sends with it. HF_ENDPOINT names a mirror
    instead. Raises UserError as `fetch` does, and where the Hub sends no checksum.
    """
    target = folder / model.rpartition("/")[2]
    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    for name in HUB_FILES:
        address = f"{endpoint.rstrip('/')}/{model}/resolve/main/{name}"
        checksum = _hub_checksum(address, target / name)
        digest_of = _git_sha1
        if len(checksum) == SHA256_DIGITS:
            digest_of = sha256_of
        _fetch(address, target / name, checksum, digest_of)

    return target


def _fetch(
    address: str,
    target: Path,
    checksum: str,
    digest_of: Callable[[Path], str],
    instead: str = "",
) -> Path:
    """Bring a file to `target`, unless it is there, whole and right; its path.

    The bytes gather in NAME.partial, where a broken-off transfer is taken up again, and get their
    name once their checksum is right; else they are deleted.
    """
    if target.is_file() and digest_of(target).startswith(checksum):
        print(f"{target} is there already")
        return target

    partial = partial_of(target)
    make_folder(target.parent)
    try:
        _receive(address, partial)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{address} cannot be fetched ({_reason(error)}); run this command again, which "
            f"continues {partial}, {instead}or fetch the address in a browser and put the file at "
            f"{target}"
        ) from None

    if not (digest := digest_of(partial)).startswith(checksum):
        partial.unlink()
        raise UserError(
            f"{address} gave a file with the checksum {digest[:12]}..., not {checksum[:12]}...; it "
            "was deleted, run this command again"
        )
    put_in_place(partial, target)
    print(f"{target} is whole, its checksum is the published one")
    return target


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: the Hub sends the checksum with the redirect, not with the bytes."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _hub_checksum(address: str, target: Path) -> str:
    """Ask the Hub for a file's checksum: SHA-256 of large ones, git's SHA-1 of others."""
    try:
        headers = _head(address)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{address} cannot be fetched ({_reason(error)}); run this command again, or fetch "
            f"the address in a browser and put the file at {target}"
        ) from None

    sent = headers.get("X-Linked-Etag") or headers.get("ETag") or ""
    checksum = sent.removeprefix("W/").strip('"').lower()
    if len(checksum) not in (SHA256_DIGITS, SHA1_DIGITS) or not checksum.isalnum():
        raise UserError(
            f"{address} comes without a checksum; fetch it in a browser and put it at {target}"
        )

    return checksum


def _head(address: str) -> Message:
    """Ask for the headers of the Hub's answer; a new name is followed, its storage is not."""
    opener = urllib.request.build_opener(_Stay)
    for _ in range(MOST_REDIRECTS):
        request = urllib.request.Request(address, method="HEAD")
        try:
            with opener.open(request, timeout=TIMEOUT) as response:
                return response.headers
        except urllib.error.HTTPError as error:
            moved = error.headers.get("Location")
            if moved is None:
                raise
            if "X-Linked-Etag" in error.headers or urllib.parse.urlsplit(moved).netloc:
                return error.headers
            address = urllib.parse.urljoin(address, moved)

    raise OSError("it leads from address to address")


def _git_sha1(path: Path) -> str:
    """Compute the checksum under which git knows a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or str(error) or type(error).__name__)


def _receive(address: str, partial: Path) -> None:
    """Bring `partial` to its full length. Raises OSError or HTTPException when the server or the
    network fails.
    """
    request = urllib.request.Request(address)
    start = 0
    if partial.is_file():
        start = partial.stat().st_size
    if start:
        request.add_header("Range", f"bytes={start}-")

    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing comes after what is here: the checksum decides
        raise

    with response:
        mode = "ab"
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server sends the whole file
            mode = "wb"
        total = None
        if length := response.headers.get("Content-Length"):
            total = start + int(length)

        with (
            partial.open(mode) as file,
            tqdm(total=total, initial=start, desc=partial.stem, unit="B", unit_scale=True) as bar,
        ):
            while piece := response.read(PIECE):
                bar.update(file.write(piece))

    if total and partial.stat().st_size < total:
        raise OSError(f"the transfer broke off after {partial.stat().st_size} of {total} bytes")


def main() -> None:
    """Read the command line and do what it asks."""
    needed = [name for name, public in PUBLIC.items() if public.needed]
    parser = Parser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(PUBLIC)} (default: {' '.join(needed)})",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("weights"), help="where they go (default: %(default)s)"
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=("publisher", "hub"),
        default="publisher",
        help="hub: the same weights as a folder, for --clip_path, --deit_path or --dino_path "
        "(default: %(default)s)",
    )
    args = parser.parse_args()

    for name in args.names:
        if name not in PUBLIC:
            raise UserError(f"{name} is no published file; choose from {', '.join(PUBLIC)}")

    for name in args.names or needed:
        if args.source == "hub":
            print(f"--{name}_path {fetch_from_hub(PUBLIC[name].hub, args.folder)}")
        else:
            fetch(PUBLIC[name], args.folder)


if __name__ == "__main__":
    command(main)()
