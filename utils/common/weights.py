"""Public weights the method starts from: names, addresses and checksums in one place."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublicFile:
    """One published file. `sha256` may be a prefix where the publisher gives no more."""

    name: str
    address: str
    sha256: str


PUBLIC = {
    "clip": PublicFile(
        "ViT-B-16.pt",
        "https://openaipublic.azureedge.net/clip/models/"
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    ),
    "deit": PublicFile(
        "deit_small_patch16_224-cd65a155.pth",
        "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",
        "cd65a155",
    ),
}


def matches_publisher(path: Path, digest: str) -> bool:
    """False when the file bears a published name but not the published checksum."""
    return all(
        digest.startswith(public.sha256) for public in PUBLIC.values() if public.name == path.name
    )
