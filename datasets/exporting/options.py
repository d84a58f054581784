"""How label maps are written: the form, and what there is to choose of it. The flags of commands
that write them are these.
"""

import argparse
from dataclasses import dataclass

from utils.common.errors import UserError, nearest

FORMATS = {
    "voc": "palette PNGs in VOC's folders, with CVAT's labelmap.txt",
    "png": "PNGs of plain numbers",
    "coco": "instances JSON of COCO",
    "labelme": "a JSON with polygons per photo, as LabelMe has them",
    "yolo": "a text with polygons per photo, as YOLO's segmentation has them, and data.yaml",
}
MASKS = ("voc", "png")  # what holds ignored pixels
POLYGONS = ("labelme", "yolo")  # what has no other form; COCO has it by request
GROUPS = ("coco", "labelme")  # what can say that several polygons are one object
TOLERANCE = 1.0  # px
FARTHEST = 100  # px; the largest tolerance


@dataclass(frozen=True)
class ExportOptions:
    """The choices of an export, checked.

    format: a key of FORMATS. polygons: whether COCO's objects are polygons instead of run lengths.
    objects: one per connected region ("regions") or per class ("classes"). tolerance: how far
    polygons may leave the edges of pixels, px (None: TOLERANCE). ignored: whether pixels of 255 are
    counted ("count") or refused ("refuse") where the form does not hold them. copy_images: whether
    photos are copied into the export.

    Raises:
        UserError: a choice is unknown, or the form does not have it.
    """

    format: str
    polygons: bool = False
    objects: str = "regions"
    tolerance: float | None = None
    ignored: str = "count"
    copy_images: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            hint = nearest(self.format, FORMATS) or f"; use {', '.join(FORMATS)}"
            raise UserError(f"--format {self.format} is not known{hint}")
        if self.polygons and self.format != "coco":
            raise UserError(f"--polygons is of --format coco, not of {self.format}; leave it out")
        if self.objects == "classes" and self.format not in GROUPS:
            raise UserError(
                f"--objects classes is of --format {' and '.join(GROUPS)}; leave it out for "
                f"{self.format}"
            )
        if self.copy_images and self.format == "png":
            raise UserError("--format png has no place for photos; leave out --copy_images")

        if self.tolerance is None:
            return
        if not self.outlined:
            remedy = "leave it out"
            if self.format == "coco":
                remedy = "add --polygons"
            raise UserError(f"--tolerance is of polygons; {remedy}")
        if not 0 <= self.tolerance <= FARTHEST:
            raise UserError(f"--tolerance {self.tolerance:g} is not between 0 and {FARTHEST} px")

    @property
    def outlined(self) -> bool:
        """Return whether objects are written as polygons."""
        return self.polygons or self.format in POLYGONS

    @property
    def keeps_names(self) -> bool:
        """Return whether photos are called as in their own folders, rather than as label maps."""
        return self.format == "coco" and not self.copy_images

    @property
    def slack(self) -> float:
        """Return how far polygons may leave the edges of pixels, px."""
        if self.tolerance is None:
            return TOLERANCE
        return self.tolerance


def add_flags(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add the flags of `ExportOptions` to a command; `--format` may be left out if not
    `required`.
    """
    add = parser.add_argument_group("formats for annotation tools and trainings").add_argument

    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in FORMATS.items())
    add("--format", required=required, choices=tuple(FORMATS), help=meanings)

    add("--polygons", action="store_true", help="coco: polygons instead of run lengths")
    add(
        "--objects",
        choices=("regions", "classes"),
        default="regions",
        help=f"{', '.join(GROUPS)}: one object per connected region, or per class (%(default)s)",
    )
    add(
        "--tolerance",
        type=float,
        metavar="PX",
        help="how far polygons may leave the edges of pixels; 0 keeps every corner (default: "
        f"{TOLERANCE:g})",
    )
    add(
        "--ignored",
        choices=("count", "refuse"),
        default="count",
        help="pixels of 255 where the format does not hold them: belong to no object and are "
        "counted in ignored.csv, or are an error (%(default)s)",
    )
    add("--copy_images", action="store_true", help="copy the photos into the export too")


def options_of(args: argparse.Namespace) -> ExportOptions:
    """Return the options that the flags of `add_flags` give. Raises UserError as they do."""
    return ExportOptions(
        args.format, args.polygons, args.objects, args.tolerance, args.ignored, args.copy_images
    )
