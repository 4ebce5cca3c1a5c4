import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.model.errors import SyncError
from mlpserve.model.sync.synchronizer import Synchronizer
from mlpserve.model.sync.urls import is_url, shown, without_secrets

SECRETS = st.text(st.characters(categories=("L", "N"), include_characters="/+:=@"), min_size=4)


@given(SECRETS, SECRETS)
def test_what_is_shown_of_a_url_has_no_secret(user: str, password: str) -> None:
    shown = without_secrets(f"x://{user}:{password}@host/models?token={password}")
    assert shown == "x://***@host/models?***"


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket/models", "file:///models"])
def test_a_url_without_secrets_is_shown_as_it_is(url: str) -> None:
    assert is_url(url)
    assert without_secrets(url) == url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x://key:geheim@host/models?sig=geheim", "x://***@host/models?***"),
        ("['x://geheim@host', 'y://host?geheim']", "['x://***@host', 'y://host?***']"),
        ("cache::x://key:gehe/im@host", "cache::x://***@host"),
        (Path("x:///key:geheim@host?geheim=1"), "x:/***@host?***"),
        ("/home/somebody@here/models", "/home/somebody@here/models"),
        (50051, "50051"),
    ],
    ids=str,
)
def test_no_text_shows_a_secret_of_a_url(text: object, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize("path", ["models", "/models", "./s3:/bucket", "a b", "C:models", ""])
def test_a_path_is_a_folder(path: str) -> None:
    assert not is_url(path)


def test_a_password_is_never_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mlpserve")
    synchronizer = Synchronizer(
        "ftp://somebody:geheim@127.0.0.1:1/models?sig=secret", tmp_path / "cache"
    )
    synchronizer.sync()
    assert synchronizer.failure is not None
    assert synchronizer.failure.startswith("ftp://***@127.0.0.1:1/models?***: cannot be listed")
    said = caplog.text + synchronizer.failure
    kept = "".join(
        path.read_text() for path in synchronizer.copy.folder.rglob("*") if path.is_file()
    )
    for secret in ("geheim", "somebody", "secret"):
        assert secret not in said + kept


@pytest.mark.parametrize(
    "url", ["s3://key:secret@bucket/models", "s3://key:se/cret@bucket", "gs://key@bucket/models"]
)
def test_credentials_that_no_library_reads_are_refused_without_being_repeated(
    url: str, tmp_path: Path
) -> None:
    with pytest.raises(SyncError) as caught:
        Synchronizer(url, tmp_path / "cache")
    assert "expected s3:// and the name" in str(caught.value).replace("gs:", "s3:")
    assert "key" not in str(caught.value)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "missing", "extra"),
    [
        ("gs://bucket", "gcsfs", "gcs"),
        ("az://container", "adlfs", "azure"),
        ("s3://bucket", "fsspec", "s3"),
        ("file:///models", "fsspec", "object-store"),
    ],
)
def test_what_is_not_installed_is_named_with_the_extra_that_brings_it(
    url: str, missing: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SyncError, match=rf"is not installed: pip install 'mlpserve\[{extra}\]'"):
        Synchronizer(url, tmp_path / "cache")


def test_a_url_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SyncError, match="expected a URL that fsspec knows, got nowhere://"):
        Synchronizer("nowhere://bucket", tmp_path / "cache")
