"""One module for each thing that a user does. Read `compress.py` first."""
