"""The client: one object for one server, or for all that a name resolves to."""

from collections.abc import Iterable, Iterator
from typing import Self

import grpc
import numpy.typing as npt

from mlpserve.client.arguments import checked_credentials, checked_text, shown
from mlpserve.client.batching import BatchingClient
from mlpserve.client.blocking_transport import BlockingTransport, blocking, run
from mlpserve.client.channel import checked_target
from mlpserve.client.core import Core
from mlpserve.client.errors import invalid_argument
from mlpserve.client.explanations import Explanations
from mlpserve.client.predictions import Predictions
from mlpserve.client.requests import MAX_IMAGES_PER_REQUEST
from mlpserve.client.results import HealthStatus, ModelInfo
from mlpserve.client.sending import DEFAULT_TIMEOUT_S, Sender
from mlpserve.client.shared_requests import DEFAULT_MAX_ROWS

__all__ = ["DEFAULT_TIMEOUT_S", "Client"]


class Client:
    """Calls an mlpserve server. Safe to use from many threads; close it when done.

    Calls that find the server unavailable are tried again for about two seconds; streams go on
    after the last batch that was answered. A connection that is lost without a word is found within
    ten seconds.

    It has one connection to each address of the target, and one process of a server answers what
    comes over it. Several clients reach several processes of a server that has more.
    Where a span of OpenTelemetry is current, calls belong to its trace.

    Wherever an argument has a default, None means it.

    Args:
        target: ``host:port``. Where a name has several addresses, calls go round all of them.
        timeout_s: Seconds that a call may take, all its requests and retries included.
        credentials: For TLS, as ``grpc.ssl_channel_credentials`` makes them; without them, nothing
            is encrypted.
        token: The bearer token that a server may ask for. It is sent with each call, so that it
            needs TLS wherever others may listen.
        checks_health: Whether servers that say that they do not serve are sent nothing; without it,
            where the target lists several addresses or begins with ``dns:``. Not for a balancer of
            connections in front of servers that drain: it would hold the one that does.
        hedge_after_s: Where a call of ``predict`` of at most 64 KiB is not answered after so many
            seconds, it is made once more, at another server where there is one, and the first
            answer counts. At most one of ten calls is. None for never.

    Raises:
        InvalidRequestError: An argument is out of its range.
        ClientError: gRPC does not work in this process, because of a fork; see the message.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = "",
        checks_health: bool | None = None,
        hedge_after_s: float | None = None,
    ) -> None:
        target = checked_target(checked_text(target, "target"))
        self._transport = BlockingTransport(
            target, checked_credentials(credentials), checks_health=checks_health
        )
        try:
            self._sender = Sender(
                target,
                self._transport,
                timeout_s=timeout_s,
                token=token,
                hedge_after_s=hedge_after_s,
            )
        except BaseException:
            self._transport.close()
            raise
        self._core = Core(self._sender)

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way end with an error."""
        self._transport.close()

    def predict(
        self,
        images: npt.ArrayLike,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        max_images_per_request: int | None = MAX_IMAGES_PER_REQUEST,
        class_names: bool = False,
        timings: bool = False,
        ood_scores: bool = False,
    ) -> Predictions:
        """Classify images.

        Many images are sent as several requests. All of them are answered by one version, even
        if the server takes up a newer one meanwhile, or a label comes to mean another.

        Args:
            images: (N, D) or (N, height, width), N at least 1; uint8 in 0..255, or float in 0..1,
                which is sent as float32. uint8 is four times smaller.
            model: The model to ask; may be left out where the server serves one only.
            version: The version that must answer; 0 leaves it to ``label``.
            label: The label whose version must answer; without it, and without ``version``, that
                of the server's default label does, or else the newest.
            timeout_s: Seconds for this call, instead of the client's.
            max_images_per_request: The most images to send as one request; a server may ask for
                fewer than is usual, as ``ModelInfo.max_batch_images``.
            class_names: Whether the answer is to have the names of the classes. The first answer of
                a version costs a request more.
            timings: Whether the answer is to say where the server spent its time.
            ood_scores: Whether the answer is to say, as ``out_of_distribution``, which images do
                not look like those that the version learned from, and the score of each. The first
                answer of a version costs a request more.

        Raises:
            InvalidRequestError: The images are not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return run(
            self._core.predict(
                images,
                model=model,
                version=version,
                label=label,
                timeout_s=timeout_s,
                max_images_per_request=max_images_per_request,
                class_names=class_names,
                timings=timings,
                ood_scores=ood_scores,
            )
        )

    def predict_stream(
        self,
        batches: Iterable[npt.ArrayLike],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        class_names: bool = False,
        timings: bool = False,
        ood_scores: bool = False,
    ) -> Iterator[Predictions]:
        """Classify batch after batch over one call, for jobs too big for memory.

        A call that breaks, as the server stops or the connection is lost, is followed by another,
        which begins with the first batch that was not answered.

        Batches are taken from ``batches`` by a thread of gRPC's, while earlier answers are still
        under way, but never more than 16 ahead of the answers. Leaving the iterator ends the call.

        Args:
            batches: Each as ``images`` of ``predict``, and small enough for one request. An array,
                which may be mapped from a file, is taken as the images themselves, and split.
            model: As for ``predict``.
            version: As for ``predict``.
            label: As for ``predict``; what it means, or which is the default, is looked up anew for
                each batch.
            timeout_s: Seconds for the whole stream, instead of the client's.
            class_names: As for ``predict``.
            timings: As for ``predict``.
            ood_scores: As for ``predict``.

        Yields:
            The answer to each batch, in their order.

        Raises:
            InvalidRequestError: A batch is not what the model takes.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        if not isinstance(batches, Iterable):
            raise invalid_argument("batches", "an iterable of arrays of images", shown(batches))
        return blocking(
            self._core.predict_stream(
                batches,
                model=model,
                version=version,
                label=label,
                timeout_s=timeout_s,
                class_names=class_names,
                timings=timings,
                ood_scores=ood_scores,
            )
        )

    def explain(
        self,
        images: npt.ArrayLike,
        *,
        classes: npt.ArrayLike | None = None,
        method: str | None = None,
        steps: int | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
        max_images_per_request: int | None = None,
        class_names: bool = False,
        timings: bool = False,
    ) -> Explanations:
        """Say how much each value of images spoke for a class, or against it.

        An explanation takes the server as long as many predictions. Many images are sent as several
        requests, which one version answers, as for ``predict``.

        Args:
            images: As for ``predict``.
            classes: The index of the class to explain: one for all images, or (N,), one for each.
                -1, and None for all, means the most probable.
            method: "integrated_gradients", whose attributions sum to what an image changed in the
                logit of the class, or the quicker "gradient_times_input".
            steps: Of integrated gradients: in so many points they are computed, 1 to 256, and 20
                where it is None. With more, ``Explanations.errors`` are smaller.
            model: As for ``predict``.
            version: As for ``predict``.
            label: As for ``predict``.
            timeout_s: As for ``predict``.
            max_images_per_request: The most images to send as one request; without it, so many that
                images times steps are 1024, with at least four steps an image. A server allows as
                many as its ``ModelInfo.max_batch_images``.
            class_names: As for ``predict``; the names are those of ``Explanations.predictions``.
            timings: As for ``predict``.

        Raises:
            InvalidRequestError: The images are not what the model takes, or another argument is out
                of its range.
            ServerFaultError: The server is too old to explain.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return run(
            self._core.explain(
                images,
                classes=classes,
                method=method,
                steps=steps,
                model=model,
                version=version,
                label=label,
                timeout_s=timeout_s,
                max_images_per_request=max_images_per_request,
                class_names=class_names,
                timings=timings,
            )
        )

    def batching(self, *, max_rows: int | None = DEFAULT_MAX_ROWS) -> BatchingClient:
        """Return an object whose ``predict`` joins the calls of many threads into one request.

        Worth it where several threads ask for an image or a few: a request costs this program
        a fifth of a millisecond, however many images it has.

        Args:
            max_rows: The most images to send as one request, up to 1024. A call with as many or
                more is sent alone. Not more than the server's ``ModelInfo.max_batch_images``.

        Raises:
            InvalidRequestError: ``max_rows`` is out of its range.
        """
        return BatchingClient(self._core, self._sender, max_rows=max_rows)

    def model(
        self,
        name: str | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout_s: float | None = None,
    ) -> ModelInfo:
        """Describe one model.

        Args:
            name: The model; may be left out where the server serves one only.
            version: Describe this version only; 0 for all that are served.
            label: Describe only the version that this label means.
            timeout_s: Seconds for this call, instead of the client's.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return run(self._core.model(name, version=version, label=label, timeout_s=timeout_s))

    def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Describe all models that are served, in the order of their names.

        Args:
            timeout_s: Seconds for this call, instead of the client's.

        Raises:
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return run(self._core.models(timeout_s=timeout_s))

    def health(self, service: str | None = None, *, timeout_s: float | None = None) -> HealthStatus:
        """Ask for the health of the server.

        Args:
            service: The full name of a gRPC service; without it, the server as a whole.
            timeout_s: Seconds for this call, instead of the client's.

        Raises:
            NotFoundError: The server has no such service.
            ClientError: The call failed; see ``mlpserve.client.errors``.
        """
        return run(self._core.health(service, timeout_s=timeout_s))

    def wait_until_ready(self, *, timeout_s: float | None = None) -> None:
        """Wait until the server answers predictions.

        Args:
            timeout_s: Seconds to wait at most, instead of the client's.

        Raises:
            TimeoutExceededError: It did not in that time. The message says what was found last.
            ClientError: It refuses for another reason than that it is not ready.
        """
        run(self._core.wait_until_ready(timeout_s=timeout_s))
