"""`inspect`: a model enters, what is inside leaves."""

from __future__ import annotations

from ttcompress.cli.arguments import Key, Model, Talk, flattened


@flattened
def inspect(model: Model, talk: Talk, key: Key = None) -> None:
    """Look inside MODEL: its layers, shapes and sizes, and how fast each spectrum falls.

    \b
    Example:
      ttcompress inspect charlm.pt
    """
    from ttcompress.cli import console
    from ttcompress.reporting.inspection import inspection_remarks, layers_table, spectra_table
    from ttcompress.workflows.inspect import inspect as look_inside

    with console.progress(talk) as progress:
        found = look_inside(model, key=key, progress=progress)
    if talk.json:
        console.document(found.as_json())
    else:
        tables = [layers_table(found.layers), spectra_table(found.weights)]
        console.show(f"{model}: {found.container}", tables, inspection_remarks(found))
