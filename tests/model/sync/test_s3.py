"""A synchronizer of a bucket, over the protocol of S3."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from mlpserve.model.errors import StoreError
from mlpserve.model.folder import versions
from mlpserve.model.labels import read_labels, set_label
from mlpserve.model.sync.store import Store
from mlpserve.model.sync.synchronizer import Synchronizer
from mlpserve.model.versions import load_version

URL = "s3://bucket/models"
IMAGE = np.zeros((1, 6), np.uint8)
TIMEOUT_S = 30.0


def test_versions_and_labels_are_copied_and_followed(
    s3: Any,
    upload: Callable[[], None],
    models: Path,
    cache: Path,
    publish: Callable[..., None],
) -> None:
    publish("tiny", versions=2)
    set_label(models, "tiny", "stable", 1)
    upload()
    synchronizer = Synchronizer(URL, cache)
    assert synchronizer.sync()
    assert load_version(cache, "tiny", 2).metadata.version == 2
    assert not synchronizer.sync()
    publish("tiny", versions=1)
    set_label(models, "tiny", "stable", 3)
    upload()
    fsspec.filesystem("s3").rm("bucket/models/tiny/1", recursive=True)
    assert synchronizer.sync()
    assert versions(cache, "tiny") == [3, 2]
    assert read_labels(cache, "tiny")["stable"].version == 3
    assert synchronizer.failure is None
    assert synchronizer.problems == {}


@pytest.mark.exhaustive  # the library tries again for some seconds
def test_a_bucket_that_goes_away_takes_nothing_away_and_is_followed_when_it_is_back(
    own_s3: Any,
    upload: Callable[[], None],
    tiny_models: None,
    cache: Path,
    publish: Callable[..., None],
) -> None:
    upload()
    synchronizer = Synchronizer(URL, cache)
    synchronizer.sync()
    own_s3.stop()
    assert not synchronizer.sync()
    assert synchronizer.failure is not None
    own_s3.start()  # without the bucket
    assert not synchronizer.sync()
    assert synchronizer.failure is not None
    assert "FileNotFoundError" in synchronizer.failure
    assert versions(cache, "tiny") == [2, 1]
    fsspec.filesystem("s3").mkdir("bucket")
    assert not synchronizer.sync()  # it is empty
    assert versions(cache, "tiny") == [2, 1]
    publish("tiny", versions=1)
    upload()
    assert synchronizer.sync()
    assert versions(cache, "tiny") == [3, 2, 1]


@pytest.mark.exhaustive  # as above
def test_a_server_that_starts_while_the_bucket_is_away_has_what_was_copied(
    own_s3: Any, upload: Callable[[], None], tiny_models: None, cache: Path
) -> None:
    upload()
    Synchronizer(URL, cache).sync()
    own_s3.stop()
    synchronizer = Synchronizer(URL, cache)
    assert not synchronizer.sync()
    assert versions(synchronizer.copy.folder, "tiny") == [2, 1]


def test_no_key_leads_out_of_the_cache(
    s3: Any, upload: Callable[[], None], tiny_models: None, tmp_path: Path, cache: Path
) -> None:
    upload()
    bucket = fsspec.filesystem("s3")
    for key in (
        "../outside/1/weights.npz",
        "../../1/weights.npz",
        "tiny/../../../1/weights.npz",
        "tiny/3/../../../weights.npz",
        "tiny/3/sub/weights.npz",
        "/etc/1/weights.npz",
        "..%2f..%2foutside/1/weights.npz",
        "tiny/-1/weights.npz",
        "tiny/01/weights.npz",
        ".unfinished-1/1/weights.npz",
        "../labels.json",
    ):
        bucket.call_s3("put_object", Bucket="bucket", Key=f"models/{key}", Body=b"evil")
    before = {path for path in tmp_path.rglob("*") if cache not in path.parents}
    synchronizer = Synchronizer(URL, cache)
    synchronizer.sync()
    assert synchronizer.failure is None
    assert {path for path in tmp_path.rglob("*") if cache not in path.parents} - before == {cache}
    assert {path.name for path in cache.rglob("*") if path.is_dir()} == {"tiny", "1", "2"}


@pytest.mark.exhaustive  # a thousand files are uploaded
def test_more_files_than_one_answer_lists_are_all_seen_and_too_many_are_refused(s3: Any) -> None:
    bucket = fsspec.filesystem("s3")
    bucket.pipe({f"bucket/models/tiny/{n}/weights.npz": b"" for n in range(1, 1102)})
    assert len(Store(URL).listing().versions) == 1101
    with pytest.raises(StoreError, match="expected at most 1000 files; give the models a folder"):
        Store(URL, max_files=1000).listing()
