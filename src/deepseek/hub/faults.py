"""What the hub's refusals and a broken network mean to a user: one sentence each, with the mend."""

from collections.abc import Iterator
from contextlib import contextmanager

from deepseek.errors import HubError
from deepseek.hub.transfer import transport_errors

_TOKEN = "set HF_TOKEN, run `hf auth login`, or pass token="


class Unreachable(HubError):
    """The hub did not answer or the connection broke; a copy in the cache may do. `cause` says it in a few words."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(f"{cause}: check the network and run the same again; what has arrived is kept")


@contextmanager
def hub_faults(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into HubError; everything else passes."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except HubError:
        raise
    except GatedRepoError as error:
        raise HubError(f"{repo} is gated: accept its terms on its page of the hub, then {_TOKEN}") from error
    except RevisionNotFoundError as error:
        raise HubError(f"{repo} has no revision {revision!r}: name a branch, a tag or a full commit of it") from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"the hub has no repository {repo}, or it is private: check the name (`deepseek models` lists known ones); "
            f"for a private one {_TOKEN}"
        ) from error
    except HfHubHTTPError as error:
        raise _of_status(repo, error) from error
    except HFValidationError as error:
        raise HubError(f"{repo!r} is not a repository's name: write ORG/NAME") from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(error) from error
    except transport_errors() as error:
        raise _unreachable(error) from error


def _of_status(repo: str, error: OSError) -> HubError:
    status = error.response.status_code  # type: ignore[attr-defined]
    if status in (401, 403):
        return HubError(f"the hub does not let you read {repo} (status {status}): {_TOKEN}")
    if status == 404:
        return HubError(f"the hub lacks a file of {repo} that it listed (status 404): run the same again")
    return _unreachable(error)


def _unreachable(error: BaseException) -> Unreachable:
    from huggingface_hub import constants

    detail = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Unreachable(f"the connection to {constants.ENDPOINT} failed ({detail})")


def offline_and_missing(repo: str, revision: str | None, reason: str, missing: str = "") -> HubError:
    """Nothing, or not everything, is in the cache, and the hub cannot be asked."""
    option = f" --revision {revision}" if revision else ""
    lacking = f"lacks {missing} of {repo}" if missing else f"has no copy of {repo}"
    return HubError(
        f"the cache {lacking} and the hub cannot be asked ({reason}): run `deepseek pull {repo}{option}` once with a "
        "network, or give the path of a folder that holds the model"
    )
