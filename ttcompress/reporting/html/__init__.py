"""Makes HTML pages about compressed models and batches: one file each, which fetches nothing.

`page.py` fills the template `page.html` and its style sheet `page.css`, `content.py` chooses what
it says, `glossary.py` explains it, and `pictures.py` draws. A page about one model runs no script;
where there are several, `sort.js` lets the reader sort their table.
"""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.model.report import Report
from ttcompress.results.batch import BatchResult
from ttcompress.system.extras import require_extra

__all__ = ["batch_page", "report_page", "require_plots"]

NEEDED = ("matplotlib", "jinja2")


def report_page(reports: Sequence[tuple[str, Report, int]]) -> str:
    """Make a page about compressed models; several are first compared side by side.

    Args:
        reports: each with the name of its file and the file's size in bytes.

    Raises:
        MissingExtraError: the extra `plots` is not installed.
    """
    require_plots()
    from ttcompress.reporting.html.page import make_report_page  # an extra

    return make_report_page(reports)


def batch_page(result: BatchResult, reports: Sequence[tuple[Report, int] | None]) -> str:
    """Make a page about a batch: a table with a line for each job, then each job's report.

    Args:
        result: what `batch` returned.
        reports: for each outcome the report of its artifact and the size of its file in bytes, or
            None if the job failed.

    Raises:
        MissingExtraError: the extra `plots` is not installed.
    """
    require_plots()
    from ttcompress.reporting.html.page import make_batch_page  # an extra

    return make_batch_page(result, reports)


def require_plots(what: str = "HTML", instead: str = "--as markdown works without it.") -> None:
    """Check that the extra is installed; the message says what needs it, and what does not.

    Raises:
        MissingExtraError: a package of the extra `plots` is not installed.
    """
    require_extra("plots", NEEDED, what, instead)
