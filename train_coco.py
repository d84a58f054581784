"""Train CVF on MS COCO 2014: `python train_coco.py --config configs/coco.yaml`; `--help` lists
every setting.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))  # which PYTHONSAFEPATH keeps Python from

from utils.cli import train_command
from utils.common.entry import command

main = command(lambda: train_command("coco.yaml", __doc__), shared=True)

if __name__ == "__main__":
    main()
