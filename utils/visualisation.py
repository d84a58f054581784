"""Pictures of what the method computes: heat maps over the image, labels in the field's colours, titled rows."""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.specs import palette

MARGIN, TITLE = 8, 22  # px around a panel and above it


def heat(image: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Scores (H, W) in 0..1 as a heat map over a faded image (H, W, 3) uint8."""
    colours = cv2.applyColorMap((255 * scores.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return (0.4 * image + 0.6 * colours).astype(np.uint8)


def coloured(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels (H, W) in the VOC palette over a faded image (H, W, 3) uint8; background shows the image."""
    colours = palette()[labels]
    return np.where((labels > 0)[..., None], 0.25 * image + 0.75 * colours, 0.55 * image).astype(np.uint8)


def titled_row(panels: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Panels (title, (H, W, 3) uint8) of one size side by side on white, each under its title."""
    height, width = panels[0][1].shape[:2]
    canvas = Image.new("RGB", (len(panels) * (width + MARGIN) + MARGIN, height + TITLE + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(15)
    for number, (title, panel) in enumerate(panels):
        left = MARGIN + number * (width + MARGIN)
        draw.text((left + width / 2, MARGIN + TITLE / 2), title, "black", font, anchor="mm")
        canvas.paste(Image.fromarray(panel), (left, MARGIN + TITLE))
    return canvas


def stacked(rows: list[Image.Image]) -> Image.Image:
    """Rows of pictures one under the other on white."""
    canvas = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        canvas.paste(row, (0, top))
        top += row.height
    return canvas
