"""Describes models as plain values: weights, recurrent layers, reports. Does not import torch."""
