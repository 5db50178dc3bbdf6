"""Checks that an optional extra is installed before work that needs it. Imports none of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from ttcompress.errors import MissingExtraError


def require_extra(extra: str, packages: Sequence[str], what: str, instead: str = "") -> None:
    """Refuse to go on without an extra; `what` needs it, `instead` is advice for doing without.

    Raises:
        MissingExtraError: one of its packages is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{what} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed. Install the extra: pip install 'ttcompress[{extra}]'. {instead}".rstrip()
        )
