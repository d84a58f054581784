"""Every setting of a run but those of the method itself (model/method.py), in groups.

Together they are a `Config` (utils/config.py). A function asks for the smallest group it needs.
"""
