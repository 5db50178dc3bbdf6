"""One module for each thing a user does. Read `compress.py` first."""
