"""Prepare data sets: `python -m datasets.prepare voc|coco|custom|check|submit|tags|toy ...`.

Each says with --help what it needs.
"""

from datasets import check, coco, custom, npy, submit, voc
from datasets.toy import write as toy
from utils.config import Parser
from utils.runtime import command

MODULES = (
    voc,
    coco,
    custom,
    check,
    submit,
    npy,
    toy,
)  # each adds one sub-command that sets `run`, taking its arguments


def main() -> None:
    """Command line; one sub-command a kind of data."""
    parser = Parser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for module in MODULES:
        module.add_command(kinds)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    command(main)()
