"""Matplotlib, whatever backend the environment names.

Notebooks leave theirs in MPLBACKEND, for commands too, and Matplotlib refuses to be imported where
an environment does not have it. Plots here are drawn without any.
"""

import contextlib
import os
import sys

_named = None
if "matplotlib" not in sys.modules:
    _named = os.environ.pop("MPLBACKEND", None)

try:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter
finally:
    if _named is not None:
        os.environ["MPLBACKEND"] = _named

if _named:  # for the plots of a notebook
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = _named

__all__ = ["Figure", "LogLocator", "NullFormatter", "matplotlib"]
