"""Shows results: tables and remarks for the terminal, Markdown, JUnit, and in `html` the page.

`table.py` is the form that all of them share, `numbers.py` how figures are written.
"""
