"""What a dataset is called, which classes it has, and the words that describe them. Nothing here
touches a file.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

IGNORE = 255  # label of pixels that neither train nor count
# prompt template of CLIP-ES (Lin et al., CVPR 2023), kept by WeCLIP and CVF
TEMPLATE = "a clean origami {}."


@dataclass(frozen=True)
class DatasetSpec:
    """Class lists and prompt words of one dataset. Label 0 is background, label k + 1 is
    `classes[k]`.

    `prompts[k]` is the wording used for `classes[k]` in text prompts; `background` are the words of
    things that are no class, which compete with the tagged classes in CLIP's softmax; `dropped` are
    those left out as they name a class.
    """

    name: str
    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    background: tuple[str, ...]
    template: str = TEMPLATE
    dropped: tuple[str, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Return the names of labels 0..K, background first."""
        return ("background", *self.classes)

    def texts(self) -> list[str]:
        """Return the K + M prompts: one per class, then one per background word."""
        return [self.template.format(word) for word in (*self.prompts, *self.background)]


@cache
def palette() -> np.ndarray:
    """Return the PASCAL VOC colour map, (256, 3) uint8, to be read alone: bit j of channel c is
    bit 3j + c of the label, highest bit first.
    """
    labels = np.arange(256, dtype=np.uint32)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    colours.setflags(write=False)
    return colours


_VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_COCO_CLASSES = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)

# COCO's category ids have gaps: 1..90 without these ten. Class k has the k-th id that is left.
_COCO_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = tuple(i for i in range(1, 91) if i not in _COCO_UNUSED_IDS)

# Wordings that CLIP understands better than the class name (CLIP-ES, table of enriched names;
# spelling as published).
_VOC_WORDING = {
    "bird": "bird avian",
    "chair": "chair seat",
    "person": "person with clothes,people,human",
    "tvmonitor": "tvmonitor screen",
}
_COCO_WORDING = {
    "person": "person with clothes,people,human",
    "motorcycle": "motorbike",
    "airplane": "aeroplane",
    "bird": "bird avian",
    "backpack": "backpack,bag",
    "umbrella": "umbrella,parasol",
    "handbag": "handbag,purse",
    "tie": "necktie",
    "snowboard": "sknowboard",
    "baseball glove": "glove",
    "spoon": "dessertspoon",
    "chair": "chair seat",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor screen",
    "remote": "remote control",
    "hair drier": "hairdrier,blowdrier",
}

BACKGROUND = (
    "ground",
    "land",
    "grass",
    "tree",
    "building",
    "wall",
    "sky",
    "lake",
    "water",
    "river",
    "sea",
    "railway",
    "railroad",
    "keyboard",
    "helmet",
    "cloud",
    "house",
    "mountain",
    "ocean",
    "road",
    "rock",
    "street",
    "valley",
    "bridge",
    "sign",
)

VOC = DatasetSpec(
    "voc", _VOC_CLASSES, tuple(_VOC_WORDING.get(c, c) for c in _VOC_CLASSES), BACKGROUND
)
COCO = DatasetSpec(
    "coco",
    _COCO_CLASSES,
    tuple(_COCO_WORDING.get(c, c) for c in _COCO_CLASSES),
    tuple(word for word in BACKGROUND if word not in ("keyboard", "sign")),
)
SPECS = {spec.name: spec for spec in (VOC, COCO)}
