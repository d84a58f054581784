"""Prepare data sets: `python -m datasets.prepare voc|coco|custom|check|submit|tags|toy ...`.

Each says with --help what it needs.
"""

from datasets.prepare import check, coco, custom, submit, tags_npy, voc
from datasets.toy import write as toy
from utils.common.entry import command
from utils.common.parser import Parser

# each adds one sub-command that sets `run`, taking its arguments
MODULES = (
    voc,
    coco,
    custom,
    check,
    submit,
    tags_npy,
    toy,
)


def main() -> None:
    """Run the command line, which has one sub-command per kind of data."""
    parser = Parser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for module in MODULES:
        module.add_command(kinds)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    command(main)()
