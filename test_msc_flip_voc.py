"""Test a CVF checkpoint on PASCAL VOC 2012: `python test_msc_flip_voc.py --model_path CKPT`."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))  # which PYTHONSAFEPATH keeps Python from

from utils.cli import evaluate_command
from utils.common.entry import command

main = command(lambda: evaluate_command("voc", __doc__), shared=True)

if __name__ == "__main__":
    main()
