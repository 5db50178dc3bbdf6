"""What is told about a model: the report as a value, and how it is built and written."""
