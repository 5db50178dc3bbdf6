"""Turns results into tables and remarks for the terminal, Markdown, JUnit and, in `html`, a page.

All share the `Table` of `table.py`; `numbers.py` formats figures.
"""
