"""The command `inspect`."""

from __future__ import annotations

from ttcompress.cli.arguments import Key, Model, Talk, flatten_options


@flatten_options
def inspect(model: Model, talk: Talk, key: Key = None) -> None:
    """List a checkpoint's layers, sizes and singular values.

    \b
    Example:
      ttcompress inspect charlm.pt

    A weight whose singular values fall fast keeps its accuracy at a low rank.
    """
    from ttcompress.cli import console
    from ttcompress.reporting.inspection import inspection_remarks, layers_table, spectra_table
    from ttcompress.workflows.inspect import inspect as look_inside

    with console.progress(talk) as progress:
        found = look_inside(model.path, key=key, progress=progress)
    tables = [layers_table(found.layers), spectra_table(found.weights)]
    title = f"{model}: {found.container}"
    console.result(talk, found, title, tables, inspection_remarks(found))
