"""The procedural toy data set: the 20 VOC classes as drawings with exact masks, in VOC or COCO
layout.
"""
