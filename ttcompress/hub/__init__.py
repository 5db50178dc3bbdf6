"""Models on the Hugging Face hub: `local_file` downloads what `hf://user/name` names.

address   reads `hf://user/name@revision/file`
choice    which file of a repository is the model
client    talks to the hub; alone it names huggingface_hub (the extra `hub`)
local     the file on this machine for an address or a path

Nothing that is downloaded is ever executed: a file is read as one on this machine is.
"""

from ttcompress.hub.address import Address, find_address
from ttcompress.hub.local import local_file

__all__ = ["Address", "find_address", "local_file"]
