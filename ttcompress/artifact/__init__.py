"""The compressed model and its file: one safetensors file that explains itself."""

from ttcompress.artifact.model import FORMAT_VERSION, CompressedModel, keyed_parts
from ttcompress.artifact.reading import is_artifact, load

__all__ = ["FORMAT_VERSION", "CompressedModel", "is_artifact", "keyed_parts", "load"]
