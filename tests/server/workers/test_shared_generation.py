import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mlpserve.server.workers.shared_generation import SharedGeneration

LOW, HIGH = 0, 2**64 - 1  # they differ in all bytes, so that a mixture of both shows

WRITER = f"""
import sys
from mlpserve.server.workers.shared_generation import SharedGeneration

shared = SharedGeneration.attach(int(sys.argv[1]))
for number in range(200_000):
    shared.generation = {LOW} if number % 2 else {HIGH}
shared.generation = 7
"""


@pytest.fixture(params=["memory", "unlinked file"])
def shared(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SharedGeneration]:
    """Return one, as systems have it that know anonymous memory, and as others do."""
    if request.param == "unlinked file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    created = SharedGeneration.create()
    yield created
    created.close()


def test_it_begins_at_0_and_those_who_attach_it_see_each_change(shared: SharedGeneration) -> None:
    attached = SharedGeneration.attach(shared.descriptor)
    assert shared.generation == attached.generation == 0
    shared.generation = 3
    assert attached.generation == 3
    attached.close()
    shared.generation = HIGH
    assert shared.generation == HIGH


def test_another_process_is_never_seen_in_the_middle_of_a_change(shared: SharedGeneration) -> None:
    command = [sys.executable, "-c", WRITER, str(shared.descriptor)]
    with subprocess.Popen(command, pass_fds=[shared.descriptor]) as writer:
        seen = set[int]()
        while shared.generation != 7:
            assert writer.poll() in {None, 0}
            seen.update(shared.generation for _ in range(100))
        assert writer.wait() == 0
    assert seen <= {LOW, HIGH, 7}


def test_other_memory_is_refused(shared: SharedGeneration) -> None:
    reading, writing = os.pipe()
    with pytest.raises(ValueError, match="expected memory of [0-9]+ bytes, got 0"):
        SharedGeneration.attach(reading)
    os.close(reading)
    os.close(writing)
