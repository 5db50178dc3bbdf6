"""Data-aware compression: collects the inputs of weights (`moments`), fits to them (`refit`)."""
