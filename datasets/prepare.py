"""Prepare data sets: `python -m datasets.prepare toy --layout voc --root data/toy_voc`."""

from datasets.toy.write import BENCHMARK, write_coco, write_voc
from utils.config import Parser
from utils.runtime import command


def main() -> None:
    """Command line; one sub-command a kind of data."""
    parser = Parser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    toy = kinds.add_parser("toy", help="draw the procedural toy data set")
    toy.add_argument("--layout", choices=("voc", "coco"), default="voc", help="folder form (default: %(default)s)")
    toy.add_argument("--root", required=True, help="folder to write; nothing is done where it is complete already")
    toy.add_argument("--train", type=int, help="training pictures (default: %(default)s)")
    toy.add_argument("--val", type=int, help="validation pictures (default: %(default)s)")
    toy.add_argument("--size", type=int, help="longer side, px (default: %(default)s)")
    toy.add_argument("--seed", type=int, help="another seed, other pictures (default: %(default)s)")
    toy.set_defaults(**BENCHMARK)
    args = parser.parse_args()
    write = write_coco if args.layout == "coco" else write_voc
    write(args.root, train=args.train, val=args.val, size=args.size, seed=args.seed)


if __name__ == "__main__":
    command(main)()
