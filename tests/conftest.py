"""For all tests: nothing of the user's is written, and nothing that the user has set changes what is tested."""

import signal
from collections.abc import Iterator

import pytest

from deepseek.server.server_config import ENVIRONMENT_PREFIX, ServerConfig


def pytest_configure() -> None:
    """Processes that tests interrupt take SIGINT, also where the tests themselves run in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A state folder (files, batches, responses) that goes away; processes that tests start inherit it.

    The cache of models and kernels stays the user's: it can be made again, but that takes minutes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in ServerConfig.__dataclass_fields__:
            patch.delenv(ENVIRONMENT_PREFIX + name.upper(), raising=False)
        yield
