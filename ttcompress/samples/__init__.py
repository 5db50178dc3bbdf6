"""The data that the sample models were trained on: texts of the Python installation, a series."""
