"""The text that the sample models were trained on, read from the Python installation."""
