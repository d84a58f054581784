"""Train CVF on PASCAL VOC 2012: `python train_voc.py --config configs/voc.yaml`; `--help` lists
every setting.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))  # which PYTHONSAFEPATH keeps Python from

from utils.cli import train_command
from utils.common.entry import command

main = command(lambda: train_command("voc.yaml", __doc__), shared=True)

if __name__ == "__main__":
    main()
