"""Downloads from the Hugging Face hub and uploads to it; the only module that uses huggingface_hub.

Tokens, the cache and the hub's own address (`HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT`) are that
library's. `HF_HUB_OFFLINE=1` takes what is in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ttcompress.errors import InputError, OutputError, OutputPathError, TTCompressError
from ttcompress.hub.address import Address, check_repository
from ttcompress.hub.choice import choose_file
from ttcompress.system.extras import require_extra
from ttcompress.system.shards import shard_names

MAIN = "main"
LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN."


@dataclass(frozen=True)
class Pushed:
    """What an upload has left on the hub.

    Attributes:
        address: of the repository, at the revision.
        url: of its commit, for a browser.
        commit: the commit's hash.
        files: names of the files that it holds now.
    """

    address: str
    url: str
    commit: str
    files: tuple[str, ...]


def check_hub(what: str) -> None:
    """Refuse to go on where the extra is missing; `what` needs it.

    Raises:
        MissingExtraError: the extra `hub` is not installed.
    """
    require_extra("hub", ["huggingface_hub"], what)


def download(address: Address, *, bars: bool = False) -> Path:
    """Bring a model into the cache of huggingface_hub, with its shards if it has any.

    Args:
        address: of the model; see `choose_file` for what it may name.
        bars: whether to show a bar on stderr.

    Returns:
        The model's file in the cache.

    Raises:
        MissingExtraError: the extra `hub` is not installed.
        InputError: there is no such repository, revision or file, or there are several models.
        TTCompressError: the hub cannot be reached, or refuses.
    """
    check_hub(str(address))
    from huggingface_hub import HfApi, constants  # an extra

    if constants.HF_HUB_OFFLINE:
        return _find_in_cache(address)

    api = HfApi()

    def fetch(name: str, revision: str | None) -> Path:
        return Path(api.hf_hub_download(address.repository, name, revision=revision))

    with _explaining(address), _bars(bars):
        info = api.model_info(address.repository, revision=address.revision)
        names = [sibling.rfilename for sibling in info.siblings or ()]
        files = list(filter(_is_safe, names))
        chosen = choose_file(address, files)
        path = fetch(chosen, address.revision)
        commit = path.parents[chosen.count("/")].name  # the branch may move on meanwhile
        folder = chosen[: chosen.rfind("/") + 1]
        for name in shard_names(path):
            if folder + name in files:  # a missing one is the reader's to report
                fetch(folder + name, commit)
    return path


def upload(
    repository: str,
    files: Mapping[str, Path | bytes],
    message: str,
    *,
    private: bool = False,
    revision: str | None = None,
    overwrite: bool = False,
    bars: bool = False,
) -> Pushed:
    """Put files into a model repository, in one commit; it and its branch are made if needed.

    Args:
        repository: `user/name`.
        files: their content, or the file that has it, by their names in the repository.
        message: of the commit.
        private: a new repository is visible to its owner alone.
        revision: the branch; by default the main one.
        overwrite: replace files that are there.
        bars: whether to show a bar on stderr.

    Raises:
        MissingExtraError: the extra `hub` is not installed.
        InputError: the repository's name is not valid, or it is public and shall be private.
        OutputPathError: a file is there already, and `overwrite` is not given.
        TTCompressError: the hub cannot be reached, or refuses.
    """
    check_repository(repository)
    check_hub(f"push to {repository}")
    from huggingface_hub import CommitOperationAdd, HfApi  # an extra
    from huggingface_hub.errors import RepositoryNotFoundError  # an extra

    api, address = HfApi(), Address(repository, revision)
    with _explaining(address, writing=True), _bars(bars):
        try:
            found = api.model_info(repository)
        except RepositoryNotFoundError:
            api.create_repo(repository, private=private or None)
            found = None
        if found is not None and private and not found.private:
            raise InputError(
                f"{Address(repository)}: is public. Make it private in its settings on the hub, "
                "push to a new repository, or omit --private."
            )
        if revision not in (None, MAIN):
            api.create_branch(repository, branch=revision, exist_ok=True)
        if found is not None and not overwrite:
            _refuse_to_replace(address, api.list_repo_files(repository, revision=revision), files)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        done = api.create_commit(
            repository, operations=operations, commit_message=message, revision=revision
        )
    return Pushed(str(address), done.commit_url, done.oid, tuple(files))


def _refuse_to_replace(address: Address, there: list[str], files: Mapping[str, object]) -> None:
    if taken := [name for name in files if name in there]:
        raise OutputPathError(
            f"{address}: already holds {' and '.join(taken)}. "
            "Use --overwrite, or push to another --revision."
        )


def _find_in_cache(address: Address) -> Path:
    """The model's file among those that were downloaded before."""
    from huggingface_hub import constants, scan_cache_dir  # an extra
    from huggingface_hub.errors import CacheNotFound  # an extra

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        repositories = frozenset()
    wanted = address.revision or MAIN
    for repository in repositories:
        if (repository.repo_type, repository.repo_id) != ("model", address.repository):
            continue
        for one in repository.revisions:
            if wanted == one.commit_hash or wanted in one.refs:
                folder = one.snapshot_path
                files = [file.file_path.relative_to(folder).as_posix() for file in one.files]
                return Path(folder / choose_file(address, files))
    raise InputError(
        f"{address}: is not in the cache, and HF_HUB_OFFLINE is set. "
        "Unset that to download the model."
    )


def _is_safe(name: str) -> bool:
    """Whether a file's name, which the hub says, stays inside a folder on every system."""
    return "\\" not in name and {"", "..", "."}.isdisjoint(name.split("/"))


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Show the library's own bars in the block, or none."""
    from huggingface_hub.utils.tqdm import (  # an extra
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _explaining(address: Address, writing: bool = False) -> Iterator[None]:
    """Turn what the library raises in the block into a message with a cure."""
    from huggingface_hub import errors  # an extra

    # Its own base, of the HTTP library that this version uses: connections fail with it.
    http_error: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    try:
        yield
    except errors.GatedRepoError as error:
        cure = f"Ask for access on its page. {LOG_IN}"
        raise InputError(f"{address}: is gated, and you have no access. {cure}") from error
    except errors.RepositoryNotFoundError as error:
        fact = "no such repository, or a private one that you have no access to"
        raise InputError(f"{address}: {fact}. Check the name. {LOG_IN}") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{address}: there is no such revision. Give a branch, a tag or a commit."
        ) from error
    except errors.HFValidationError as error:
        raise InputError(
            f"{address}: is not a valid repository ({_first_line(error)}). Write user/name."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        kind = OutputError if writing else TTCompressError
        fact = f"the hub refuses ({_first_line(error.server_message or error)})"
        cure = LOG_IN if status in (401, 403) else "Try again later."
        if status == 403 and writing:
            cure = "Use a token that may write to this repository: `hf auth login`, or HF_TOKEN."
        raise kind(f"{address}: {fact}. {cure}") from error
    except RuntimeError as error:  # as an upload of a large file ends
        cause = error.__cause__ or error
        raise OutputError(
            f"{address}: the upload failed ({_first_line(cause)}). Try again later."
        ) from error
    except (http_error, ConnectionError, errors.LocalEntryNotFoundError) as error:
        raise TTCompressError(
            f"{address}: the hub cannot be reached ({_first_line(error)}). Check the connection."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{address}: cannot be {'read' if writing else 'written to the cache'}: "
            f"{error.strerror or error}. Check the disk; HF_HOME is where the cache is."
        ) from error


def _first_line(error: BaseException | str) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
