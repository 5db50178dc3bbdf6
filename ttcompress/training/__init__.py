"""Winning accuracy back: a compressed model and a task enter, the same model trained leaves.

Read `training.py` first: the loop. `student.py` is the model it trains, `resume.py` what an
interruption leaves to go on from.
"""
