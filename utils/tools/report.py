"""Draw a run, or compare several: `python -m utils.tools.report RUN [RUN...]`.

One run folder: its report.html anew. Several: one page with their scores, classes, curves, settings
and images side by side, next to the first folder unless --out names a file.
"""

from pathlib import Path

from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import require_place
from utils.common.parser import Parser
from utils.report.comparison import write_comparison
from utils.report.page import write_report


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="page of a comparison (default: comparison.html)"
    )
    args = parser.parse_args()
    if len(args.runs) == 1 and args.out:
        raise UserError(f"--out {args.out} is for a comparison; leave it out, or name a second run")
    if len(args.runs) == 1:
        print(write_report(args.runs[0]))
    else:
        page = args.out or args.runs[0].parent / "comparison.html"
        require_place(page, "--out")
        print(write_comparison(args.runs, page))


if __name__ == "__main__":
    command(main)()
