"""Errors of the server, one class for each reaction of the caller.

    ServerError
    |-- RequestError          the request breaks the contract: mend it, do not repeat it
    |   `-- TooLargeError     it is longer than any may be: send less at once
    |-- NotServedError        no such model or version here: ask for another
    |-- UnsupportedError      a part of a protocol that is not answered here: do without it
    |-- NotAllowedError       the operator did not allow it: ask the operator
    |-- NotReadyError         nothing is served yet: repeat it later
    |-- UnusableError         a version that was to be loaded failed its checks: publish another
    |-- OverloadedError       too much at once: repeat it later
    |-- ShortageError         the machine has not enough left for it: ask for less, or later
    |-- UnauthenticatedError  the caller does not say, or prove, who it is
    |-- ExpiredError          nobody waits for the answer any more: nothing to do
    `-- StartError            the server cannot start: mend its flags, port or models folder

All but the last are mapped to gRPC statuses in `mlpserve.server.statuses`, and only there.
"""


class ServerError(Exception):
    """The message is meant for the caller, or at start for the operator."""


class RequestError(ServerError):
    """A field of the request has a value that the contract rules out."""


class TooLargeError(RequestError):
    """The body of the request is longer than any may be."""


class NotServedError(ServerError):
    """The request names a model or a version that is not served here."""


class UnsupportedError(ServerError):
    """The request asks for a part of a protocol that this server does not have."""


class NotAllowedError(ServerError):
    """The request asks for what the server was not told to allow."""


class NotReadyError(ServerError):
    """No version of any model is served yet."""


class UnusableError(ServerError):
    """A version that was to be loaded failed its checks; what was served before still is."""


class OverloadedError(ServerError):
    """The server does as much as it is allowed to do."""


class ShortageError(ServerError):
    """The system gives this process no memory, or no descriptors, for what was asked."""


class UnauthenticatedError(ServerError):
    """The call carries no token that is known here."""


class ExpiredError(ServerError):
    """The call was cancelled, or its deadline passed, before it was computed."""


class StartError(ServerError):
    """The server cannot start."""
