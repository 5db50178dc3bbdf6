"""Markdown shows names as they are: they come out of other people's files."""

from __future__ import annotations

import pytest

from ttcompress.reporting.markdown import page, table_markdown
from ttcompress.reporting.table import Column, Table


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("[here](https://example.org)", r"\[here](https://example.org)"),
        ("![x](y)", r"!\[x](y)"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("<img src=x>", "&lt;img src=x>"),
    ],
)
def test_a_name_is_no_markup(name: str, written: str) -> None:
    assert page(name, [], [name]) == f"# {written}\n\n- {written}\n"
    assert table_markdown(Table((Column("a"),), ((name,),))).endswith(f"| {written} |")
