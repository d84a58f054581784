"""What one runs once: folders and annotations of VOC, COCO or one's own, made ready for
training.
"""
