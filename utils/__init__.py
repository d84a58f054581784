"""Configuration, training, testing and reports.

Every command imports this before PyTorch, whose threads read the setting below once.
"""

import os

from utils.common.startup import answer_for_commands

answer_for_commands()

# A thread that is done with its part of an operation waits for the others without leaving its core,
# by default for milliseconds, and on a busy machine they need that very core. A short wait does.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
