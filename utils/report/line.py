"""The line about its report with which a run ends."""

import shlex
from pathlib import Path


def report_line(folder: Path) -> str:
    """Write the report of a run that is over; says where it is, or in one line why it could not be
    written.
    """
    try:
        # imported here, as Matplotlib takes a second, which no mistake in a flag should cost
        from utils.report.page import write_report

        return f"report: {write_report(folder)}"
    except Exception as error:  # whatever it is, the run's numbers are on disk and more important
        return (
            f"warning: no report.html ({type(error).__name__}: {error}); `python -m "
            f"utils.tools.report {shlex.quote(str(folder))}`"
        )
