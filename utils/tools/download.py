"""Fetch the public weights: `python -m utils.tools.download [clip] [deit] [--folder weights]`; both
if none named.
"""

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from utils.common.entry import Parser, command
from utils.common.errors import UserError
from utils.common.files import partial_of, sha256_of
from utils.common.weights import PUBLIC, PublicFile

PIECE = 1 << 20  # bytes read at a time
TIMEOUT = 30  # seconds without an answer


def fetch(public: PublicFile, folder: Path) -> Path:
    """The published file in `folder`, fetched unless it is there, whole and right; returns its
    path.

    The bytes gather in NAME.partial, where a broken-off transfer is taken up again, and get their
    name once their SHA-256 is the published one (or begins with the published prefix). Raises
    UserError when the address cannot be reached, the transfer breaks off, or the checksum is wrong
    (the bytes are deleted then).
    """
    target = folder / public.name
    if target.is_file() and sha256_of(target).startswith(public.sha256):
        print(f"{target} is there already")
        return target
    partial = partial_of(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _receive(public, partial)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise UserError(
            f"{public.address} cannot be fetched ({reason}); run this command again, which "
            f"continues {partial}, "
            f"or fetch the address in a browser and put the file at {target}"
        ) from None
    if not (digest := sha256_of(partial)).startswith(public.sha256):
        partial.unlink()
        raise UserError(
            f"{public.address} gave a file with SHA-256 {digest[:12]}..., not "
            f"{public.sha256[:12]}...; "
            "it was deleted, run this command again"
        )
    partial.replace(target)
    print(f"{target} is whole, its SHA-256 is the published one")
    return target


def _receive(public: PublicFile, partial: Path) -> None:
    """Bring `partial` to its full length. Raises OSError or HTTPException when the server or the
    network fails.
    """
    start = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(
        public.address, headers={"Range": f"bytes={start}-"} if start else {}
    )
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing comes after what is here: the checksum decides
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            partial.open("ab" if start else "wb") as file,
            tqdm(total=total, initial=start, desc=public.name, unit="B", unit_scale=True) as bar,
        ):
            while piece := response.read(PIECE):
                bar.update(file.write(piece))
    if total and partial.stat().st_size < total:
        raise OSError(f"the transfer broke off after {partial.stat().st_size} of {total} bytes")


def main() -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{' or '.join(PUBLIC)} (default: both)"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("weights"), help="where they go (default: %(default)s)"
    )
    args = parser.parse_args()
    for name in args.names:
        if name not in PUBLIC:
            raise UserError(f"{name} is no published file; choose from {', '.join(PUBLIC)}")
    for name in args.names or PUBLIC:
        fetch(PUBLIC[name], args.folder)


if __name__ == "__main__":
    command(main)()
