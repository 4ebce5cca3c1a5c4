import os
import resource
import socket
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.server.workers.connection import Connection, ConnectionClosedError, connection_pair

CONTENTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


def named_file(name: str) -> int:
    """Return the descriptor of an open file that holds its own name."""
    with tempfile.TemporaryFile() as file:
        file.write(name.encode())
        file.flush()
        return os.dup(file.fileno())


def name_of(descriptor: int) -> str:
    return os.pread(descriptor, 100, 0).decode()


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def relay(incoming: socket.socket, outgoing: socket.socket, lengths: Sequence[int]) -> None:
    """Pass on what comes, in pieces of these lengths, until it ends."""
    for length in cycle(lengths):
        data, descriptors, _, _ = socket.recv_fds(incoming, length, 100)
        if not data:
            break
        socket.send_fds(outgoing, [data], descriptors)
        close_all(descriptors)
    outgoing.close()


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process have so many more files open, if those that it has have no gaps."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@given(
    st.lists(st.tuples(CONTENTS, st.integers(0, 3)), max_size=5),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_messages_arrive_whole_with_their_descriptors_however_they_are_cut(
    messages: list[tuple[dict[str, Any], int]], lengths: list[int]
) -> None:
    sender, incoming = connection_pair()
    outgoing, receiver = connection_pair()[::-1]
    Thread(target=relay, args=(incoming, outgoing, lengths)).start()
    for number, (content, count) in enumerate(messages):
        files = [named_file(f"{number}.{index}") for index in range(count)]
        sender.send(content, files)
        close_all(files)
    sender.close()
    for number, (content, count) in enumerate(messages):
        received = receiver.receive()
        assert received.content == content
        names = [name_of(descriptor) for descriptor in received.descriptors]
        assert names == [f"{number}.{index}" for index in range(count)]
        close_all(received.descriptors)
    with pytest.raises(ConnectionClosedError):
        receiver.receive()
    receiver.close()
    incoming.close()


def test_more_descriptors_than_one_piece_carries_arrive_in_order() -> None:
    sender, peer = connection_pair()
    receiver = Connection(peer)
    files = [named_file(str(number)) for number in range(200)]
    sender.send({}, files)
    sender.send({"next": 1}, files[:1])
    received = receiver.receive().descriptors
    assert [name_of(descriptor) for descriptor in received] == [str(n) for n in range(200)]
    after = receiver.receive()
    assert (after.content, name_of(after.descriptors[0])) == ({"next": 1}, "0")
    close_all([*files, *received, *after.descriptors])
    sender.close()
    receiver.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\0",
        struct.pack("!II", 9, 0) + b"{}",
        struct.pack("!II", 2, 1) + b"{}",
        struct.pack("!II", 2, 0) + b"{]",
        struct.pack("!II", 2, 0) + b"\xff\xfe",
    ],
    ids=["nothing", "half a header", "half a message", "no descriptor", "no JSON", "no text"],
)
def test_a_peer_that_is_gone_or_talks_nonsense_is_told_apart_from_one_that_speaks(
    sent: bytes,
) -> None:
    receiver, peer = connection_pair()
    peer.sendall(struct.pack("!II", 2, 0) + b"{}" + sent)
    peer.close()
    assert receiver.receive().content == {}
    with pytest.raises(ConnectionClosedError):
        receiver.receive()
    with pytest.raises(ConnectionClosedError):
        receiver.send({})
    receiver.close()


def test_who_waits_for_a_message_is_told_when_this_end_hangs_up() -> None:
    receiver, peer = connection_pair()
    failures = []

    def receive() -> None:
        try:
            receiver.receive()
        except ConnectionClosedError as error:
            failures.append(error)

    thread = Thread(target=receive)
    thread.start()
    receiver.hang_up()
    thread.join()
    assert len(failures) == 1
    assert peer.recv(1) == b""
    receiver.close()
    peer.close()
    receiver.hang_up()  # once more does no harm


def test_a_peer_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mlpserve.server.workers.connection._SEND_TIMEOUT", struct.pack("@ll", 0, 10_000)
    )
    sender, peer = connection_pair()
    with pytest.raises(ConnectionClosedError):
        sender.send({"long": "x" * 10_000_000})
    while peer.recv(100_000):  # and it is told: it never sees half a message as the whole
        pass
    sender.close()
    peer.close()


def test_descriptors_that_nobody_took_are_closed() -> None:
    receiver, sender = connection_pair()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    socket.send_fds(sender, [struct.pack("!II", 100, 1)], [writing])
    os.close(writing)
    sender.close()
    with pytest.raises(ConnectionClosedError):
        receiver.receive()
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)  # there is somebody who could write
    receiver.close()
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_message_whose_descriptors_find_no_room_is_told_apart_and_the_next_is_whole() -> None:
    sender, peer = connection_pair()
    receiver = Connection(peer)
    files = [named_file(str(number)) for number in range(3)]
    sender.send({"number": 1}, files)
    with descriptors_left(1):
        assert receiver.receive() == ({"number": 1}, (), False)
    sender.send({"number": 2}, files[:1])
    received = receiver.receive()
    assert (received.content, name_of(*received.descriptors)) == ({"number": 2}, "0")
    close_all([*files, *received.descriptors])
    sender.close()
    receiver.close()


def test_only_the_messages_whose_descriptors_find_no_room_lack_them() -> None:
    sender, peer = connection_pair()
    receiver = Connection(peer)
    (file,) = files = [named_file("0")]
    for number in range(3):
        sender.send({"number": number}, files)
    with descriptors_left(1):
        first, second = receiver.receive(), receiver.receive()
    assert (first.is_whole, second) == (True, ({"number": 1}, (), False))
    third = receiver.receive()
    assert (third.content, name_of(*third.descriptors)) == ({"number": 2}, "0")
    close_all([file, *first.descriptors, *third.descriptors])
    sender.close()
    receiver.close()


def test_long_messages_of_many_threads_do_not_mix_and_keep_their_descriptors() -> None:
    sender, peer = connection_pair()
    receiver = Connection(peer)
    files = {name: [named_file(name)] * 70 for name in "abcd"}

    def send(name: str) -> None:
        for _ in range(5):
            sender.send({name: name * 200_000}, files[name])

    threads = [Thread(target=send, args=(name,)) for name in files]
    for thread in threads:
        thread.start()
    seen = []
    for _ in range(20):
        received = receiver.receive()
        ((name, text),) = received.content.items()
        assert text == name * 200_000
        assert [name_of(descriptor) for descriptor in received.descriptors] == [name] * 70
        close_all(received.descriptors)
        seen.append(name)
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted("abcd" * 5)
    for same in files.values():
        os.close(same[0])
    sender.close()
    receiver.close()
