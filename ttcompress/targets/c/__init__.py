"""Exports to C99: a model as source files that compile anywhere, and the same run from Python.

    describe -> pack -> write_files -> build -> Library

`kernel.c`, `model.h`, `model.c` and the others are templates with few holes; see `writing`.
"""
