"""The file on this machine that a model's name leads to: `local_file`."""

from __future__ import annotations

from pathlib import Path

from ttcompress.hub.address import find_address


def local_file(model: str | Path, *, bars: bool = False) -> Path:
    """The file of a model: of an address its download, of anything else the path itself.

    Args:
        model: a path, or an address.
        bars: whether a download shows a bar on stderr.

    Raises:
        MissingExtraError: it is an address, but the extra `hub` is not installed.
        InputError: it is an address that leads to no model, or to several.
        TTCompressError: it cannot be downloaded.
    """
    address = find_address(model)
    if address is None:
        return Path(model)
    from ttcompress.hub.client import download  # huggingface_hub, and only for an address

    return download(address, bars=bars)
