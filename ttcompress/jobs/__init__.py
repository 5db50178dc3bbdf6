"""Runs many jobs in worker processes or on a Dask cluster, and remembers what was done."""
