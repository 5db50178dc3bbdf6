"""Runs many jobs in worker processes or on a Dask cluster, and skips those done before."""
