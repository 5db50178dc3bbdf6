"""Winning accuracy back: a compressed model and a task enter, the same model trained leaves.

Read `training.py` first: the loop. `student.py` is the model it trains, `progress.py` what survives
an interruption.
"""
