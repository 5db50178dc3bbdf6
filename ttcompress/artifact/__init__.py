"""The compressed model, and reading and writing it as one self-describing safetensors file."""

from ttcompress.artifact.model import CompressedModel, keyed_parts
from ttcompress.artifact.reading import is_artifact, load
from ttcompress.results.document import FORMAT_VERSION

__all__ = ["FORMAT_VERSION", "CompressedModel", "is_artifact", "keyed_parts", "load"]
