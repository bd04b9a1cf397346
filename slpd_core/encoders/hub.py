"""Files of the Hugging Face hub and of model folders, and errors that say how to get them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import errors, hf_hub_download

from slpd_core.config import PatchEncoderConfig

HUB, FOLDER = PatchEncoderConfig.HUB, PatchEncoderConfig.FOLDER


def find_file(name: str, *files: str) -> Path:
    """Find the first of several files in a folder, or in a repository of the hub, whose files are fetched.

    Args:
        name: local-dir:DIR, or hf-hub:OWNER/MODEL with or without @REVISION.
        files: Names of files, the best first.

    Returns:
        Path of the file, of the hub's cache if it is fetched.

    Raises:
        FileNotFoundError: The folder has none of the files.
        RuntimeError: The hub fails, refuses access or has none of them.
    """
    if name.startswith(FOLDER):
        folder = Path(name.removeprefix(FOLDER))
        for file in files:
            if (folder / file).is_file():
                return folder / file
        raise FileNotFoundError(
            f"patch_encoder.name: {folder} has no {' or '.join(files)}; give the whole folder of a timm model"
        )
    repository, _, revision = name.removeprefix(HUB).partition("@")
    with explain_hub_errors(f"patch_encoder.name: {name}", repository):
        for file in files[:-1]:
            try:
                return Path(hf_hub_download(repository, file, revision=revision or None))
            except errors.EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, files[-1], revision=revision or None))


@contextmanager
def explain_hub_errors(key: str, repository: str) -> Iterator[None]:
    """Turn errors of the hub into a RuntimeError that names the remedy.

    Args:
        key: Key and value of the config that led to the hub.
        repository: OWNER/MODEL on the hub; "" for weights that are elsewhere.

    Yields:
        Nothing.

    Raises:
        RuntimeError: The hub fails, refuses access or cannot be reached.
    """
    page = f"https://huggingface.co/{repository}" if repository else "their authors' page"
    fetch = f"`hf download {repository} --local-dir DIR`" if repository else "a browser"
    elsewhere = (
        f"or fetch them on another machine by {fetch} and set patch_encoder.name to {FOLDER}DIR, or "
        "patch_encoder.weights to the file (with its architecture as the name)"
    )
    try:
        yield
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError, errors.HFValidationError) as error:
        raise RuntimeError(f"{key}: not found ({_first_line(error)}); look at {page} for what there is") from error
    except errors.HfHubHTTPError as error:
        if not isinstance(error, errors.RepositoryNotFoundError) and error.response.status_code not in (401, 403):
            raise RuntimeError(
                f"{key}: the hub fails ({_first_line(error)}); run snakemake again later, {elsewhere}"
            ) from error
        raise RuntimeError(
            f"{key}: no access to the weights, or a misspelt name ({_first_line(error)}); open {page} and accept its "
            "terms while logged in, then run `hf auth login` on this machine or set HF_TOKEN to a token that may read "
            f"gated models; {elsewhere}"
        ) from error
    except (OSError, errors.HTTPError) as error:  # LocalEntryNotFoundError, OfflineModeIsEnabled, lost connections
        raise RuntimeError(
            f"{key}: the weights are not in this machine's cache and cannot be fetched ({_first_line(error)}): is it "
            "offline, or HF_HUB_OFFLINE set? On a cluster fetch them on the login node first, into the HF_HOME that "
            "the jobs see, by "
            + (f"`hf download {repository}`" if repository else "timm.create_model(NAME, pretrained=True)")
            + f"; {elsewhere}"
        ) from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its class."""
    return next(iter(str(error).splitlines()), type(error).__name__)
