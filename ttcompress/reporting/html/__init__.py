"""Makes an HTML page about compressed models: one file that fetches nothing and runs no script.

`page.py` fills the template `page.html` and its style sheet `page.css`, `content.py` chooses what
it says, and `pictures.py` draws.
"""

from __future__ import annotations

from collections.abc import Sequence

from ttcompress.model.report import Report
from ttcompress.system.extras import require_extra

__all__ = ["report_page", "require_plots"]

NEEDED = ("matplotlib", "jinja2")


def report_page(reports: Sequence[tuple[str, Report, int]]) -> str:
    """Make a page about compressed models; several are first compared side by side.

    Args:
        reports: each with the name of its file and the file's size in bytes.

    Raises:
        MissingExtraError: the extra `plots` is not installed.
    """
    require_plots()
    from ttcompress.reporting.html.page import make_page  # an extra

    return make_page(reports)


def require_plots(what: str = "HTML", instead: str = "--as markdown works without it.") -> None:
    """Check that the extra is installed; the message says what needs it, and what does not.

    Raises:
        MissingExtraError: a package of the extra `plots` is not installed.
    """
    require_extra("plots", NEEDED, what, instead)
