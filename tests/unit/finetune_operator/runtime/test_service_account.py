"""The pod's own identity: where the API server is, whom to believe, and which token is good now."""

from pathlib import Path

import pytest

from finetune_operator.runtime.errors import NoCluster
from finetune_operator.runtime.service_account import TOKEN_SECONDS, ServiceAccount, is_in_cluster, is_ipv6

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_the_environment_says_where_the_api_server_is(folder: Path, host: str, server: str) -> None:
    environment = {**IN_POD, "KUBERNETES_SERVICE_HOST": host}
    assert ServiceAccount(folder, environment).server == server
    assert is_ipv6(environment) is (":" in host)
    assert is_in_cluster(IN_POD)
    assert not is_in_cluster({})


async def test_a_renewed_token_is_found_in_time_and_at_once_where_the_old_one_is_refused(folder: Path) -> None:
    now = 0.0
    account = ServiceAccount(folder, IN_POD, lambda: now)
    (folder / "token").write_text("second")
    assert await account.authorization() == "Bearer first"
    now = TOKEN_SECONDS
    assert await account.authorization() == "Bearer second"
    (folder / "token").write_text("third")
    await account.renew()
    assert await account.authorization() == "Bearer third"


async def test_a_token_that_cannot_be_read_now_is_used_as_long_as_it_is_good(folder: Path) -> None:
    now = 0.0
    account = ServiceAccount(folder, IN_POD, lambda: now)
    (folder / "token").unlink()
    now = TOKEN_SECONDS
    assert await account.authorization() == "Bearer first"
    with pytest.raises(NoCluster, match="token"):
        await account.renew()


@pytest.mark.parametrize("missing", ["token", "ca.crt", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"])
def test_what_is_missing_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink(missing_ok=True)
    environment = {name: value for name, value in IN_POD.items() if name != missing}
    with pytest.raises(NoCluster, match=missing):
        ServiceAccount(folder, environment)


def test_an_empty_token_is_none(folder: Path) -> None:
    (folder / "token").write_text("\n")
    with pytest.raises(NoCluster, match="empty"):
        ServiceAccount(folder, IN_POD)
