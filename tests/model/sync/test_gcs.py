"""A synchronizer of a bucket, over the protocol of Google Cloud Storage."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gcs_server import configure, gcs, gcs_upload, gcs_url
from mlpserve.model.errors import StoreError
from mlpserve.model.folder import versions
from mlpserve.model.labels import read_labels, set_label
from mlpserve.model.sync.store import Store
from mlpserve.model.sync.synchronizer import Synchronizer
from mlpserve.model.versions import load_version

__all__ = ["gcs", "gcs_upload", "gcs_url"]

URL = "gs://bucket/models"


def test_versions_and_labels_are_copied_and_followed(
    gcs: Any,
    gcs_upload: Callable[[], None],
    models: Path,
    cache: Path,
    publish: Callable[..., None],
) -> None:
    publish("tiny", versions=2)
    set_label(models, "tiny", "stable", 1)
    gcs_upload()
    synchronizer = Synchronizer(URL, cache)
    assert synchronizer.sync()
    assert load_version(cache, "tiny", 2).metadata.version == 2
    assert not synchronizer.sync()
    publish("tiny", versions=1)
    set_label(models, "tiny", "stable", 3)
    gcs_upload()
    for path in gcs.find("bucket/models/tiny/1"):
        gcs.rm_file(path)
    assert synchronizer.sync()
    assert versions(cache, "tiny") == [3, 2]
    assert read_labels(cache, "tiny")["stable"].version == 3
    assert synchronizer.failure is None
    assert synchronizer.problems == {}


def test_the_whole_bucket_may_be_the_models_folder(
    gcs: Any, models: Path, cache: Path, tiny_models: None
) -> None:
    for path in models.rglob("*"):
        if path.is_file():
            gcs.pipe_file(f"bucket/{path.relative_to(models)}", path.read_bytes())
    assert Synchronizer("gs://bucket", cache).sync()
    assert versions(cache, "tiny") == [2, 1]


def test_a_bucket_that_is_empty_or_missing_takes_nothing_away(
    gcs: Any, gcs_upload: Callable[[], None], cache: Path, tiny_models: None
) -> None:
    gcs_upload()
    synchronizer = Synchronizer(URL, cache)
    assert synchronizer.sync()
    for path in gcs.find("bucket"):
        gcs.rm_file(path)
    assert not synchronizer.sync()
    assert "has no version any more" in str(synchronizer.failure)
    assert versions(cache, "tiny") == [2, 1]
    with pytest.raises(
        StoreError, match="gs://missing/models: cannot be listed: FileNotFoundError"
    ):
        Store("gs://missing/models").listing()


class Endless(BaseHTTPRequestHandler):
    """Lists files without an end, as many an answer as it is asked for."""

    asked = 0

    def do_GET(self) -> None:
        first = Endless.asked
        Endless.asked += 1
        count = int(parse_qs(urlsplit(self.path).query)["maxResults"][0])
        items = [
            {"name": f"models/tiny/{first * 1000 + each}/weights.npz", "size": "1"}
            for each in range(1, count + 1)
        ]
        page = {"kind": "storage#objects", "items": items, "nextPageToken": "more"}
        body = json.dumps(page).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as the base has it
        """Say nothing."""


def test_a_listing_without_an_end_is_read_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    Thread(target=server.serve_forever).start()
    configure(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    with pytest.raises(StoreError, match="expected at most 2500 files"):
        Store(URL, max_files=2500).listing()
    assert Endless.asked == 3
    server.shutdown()
    server.server_close()
