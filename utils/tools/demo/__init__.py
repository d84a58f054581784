"""A page to try the method on a photo: `python -m utils.tools.demo`."""
