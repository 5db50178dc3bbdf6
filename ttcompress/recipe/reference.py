"""Writes the keys of recipes and manifests as a JSON Schema for editors and as tables for readers.

`json_schema` is printed by `ttcompress recipes schema` and kept as `recipes/schema.json`;
`markdown` is the reference of every key. Both describe each value by itself. What several keys must
agree on (modes and ranks, a budget where something is left to choose) is checked on reading alone.
"""

from __future__ import annotations

import json

from ttcompress.recipe.schema import Recipe
from ttcompress.recipe.sections import Json, Key, Section, section_of


def json_schema(document: type[Section] = Recipe) -> Json:
    """A JSON Schema (draft 2020-12) that accepts every document that can be read."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A {document.__name__.lower()} of ttcompress",
        **section_of(document).schema,
    }


def markdown(document: type[Section] = Recipe) -> str:
    """A table of the document's keys, then one for each section in it."""
    titles = {document: document.__name__.lower()}
    tables = []
    for section in (waiting := [document]):  # which grows in the loop
        rows = [_row(name, key) for name, key in section.KEYS.items()]
        head = "| key | value | default | option | meaning |\n|---|---|---|---|---|"
        tables.append("\n".join([f"### {titles[section]}\n", head, *rows, ""]))
        for name, key in section.KEYS.items():
            if key.kind.section and key.kind.section not in titles:
                titles[key.kind.section] = name
                waiting.append(key.kind.section)
    return "\n".join(tables)


def _row(name: str, key: Key) -> str:
    default = key.schema.get("default")
    written = default if isinstance(default, str) else json.dumps(default)
    cells = (
        "any other" if key.rest else f"`{name}`",
        key.kind.words,
        "required" if key.missing else "" if default is None else f"`{written}`",
        f"`{key.option.split()[0]}`" if key.option else "",
        key.help,
    )
    return f"| {' | '.join(cells)} |"
