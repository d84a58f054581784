"""Methods beside each other on one data set: `python -m utils.tools.compare_methods`."""
