"""Other wordings of the drawn classes and background words, for captions and for matching data
sets.
"""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "aeroplane": ("airplane", "plane", "aircraft"),
    "bicycle": ("bike",),
    "bird": ("bird avian",),
    "boat": ("ship",),
    "bottle": (),
    "bus": (),
    "car": ("automobile",),
    "cat": ("kitten",),
    "chair": ("chair seat",),
    "cow": ("cattle",),
    "diningtable": ("dining table", "table"),
    "dog": ("puppy",),
    "horse": ("pony",),
    "motorbike": ("motorcycle",),
    "person": ("person with clothes,people,human", "people", "human", "man", "woman"),
    "pottedplant": ("potted plant", "house plant"),
    "sheep": ("lamb",),
    "sofa": ("couch",),
    "train": ("locomotive",),
    "tvmonitor": ("tvmonitor screen", "tv", "monitor", "television"),
    "sky": ("cloud",),
    "wall": (),
    "tree": ("forest",),
    "building": ("house",),
    "mountain": (),
    "grass": ("meadow",),
    "ground": ("land", "valley"),
    "road": ("street",),
    "water": ("lake", "river", "sea", "ocean"),
    "rock": (),
    "railroad": ("railway",),
}
"""VOC class name or drawn background word -> other words for it, among them all of the prompts."""

UNDRAWN: tuple[str, ...] = ("keyboard", "helmet", "bridge", "sign")
"""Background words of `datasets.specs` that no toy picture shows."""


def wordings(name: str) -> tuple[str, ...]:
    """Return the name itself, then its synonyms. Raises KeyError for a name that is never drawn."""
    return (name, *SYNONYMS[name])
