"""Predicting: images of files, folders, tables or a data set in, a row for each image out."""

import argparse
import hashlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

try:
    from mlpserve.client.predict.allocator import keep_freed_memory
    from mlpserve.client.predict.batches import Source, Wanted, read_batches
    from mlpserve.client.predict.connection import connected_client
    from mlpserve.client.predict.files import ImageFile
    from mlpserve.client.predict.flags import (
        EXIT_SOME_FAILED,
        PROGRAM,
        Destination,
        checked_destination,
        command_parser,
    )
    from mlpserve.client.predict.folders import ResultFolder
    from mlpserve.client.predict.inputs import Inputs, PipedFile, SplitSource
    from mlpserve.client.predict.jobs import Engine, Job, here, run_job
    from mlpserve.client.predict.outputs import RESERVED, Form
    from mlpserve.client.predict.parts import Parts
    from mlpserve.client.predict.pictures import Look
    from mlpserve.client.predict.predictors import Predictor, ServedModel
    from mlpserve.client.predict.results import FileResults, Results, StreamResults
    from mlpserve.client.predict.run import Speed, run
    from mlpserve.client.predict.shards import cut
    from mlpserve.client.predict.stores import RemoteFile
    from mlpserve.client.predict.tally import ResultsError, Tally
    from mlpserve.datasets import DatasetError, load_test_split
    from mlpserve.datasets.raw import ReadOptions
    from mlpserve.datasets.source import DATASETS
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"mlpserve-predict needs {missing.name}: pip install 'mlpserve[predict]'"
    ) from missing

from mlpserve.client import ClientError, UnavailableError
from mlpserve.model.command_line import (
    EXIT_INTERRUPTED,
    OutputError,
    failed,
    printable,
    standard_output,
)
from mlpserve.model.errors import ModelError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, as ``--help`` describes it."""
    parser = command_parser()
    options = parser.parse_intermixed_args(arguments)
    destination = checked_destination(parser, options)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    keep_freed_memory()
    code = 0
    try:
        with standard_output():
            code = _predict(options, destination)
    except UnavailableError as error:
        return _failed(f"{error}; is mlpserve-serve running there?")
    except (ClientError, DatasetError, ModelError, OutputError, ResultsError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _predict(options: argparse.Namespace, destination: Destination) -> int:
    with ExitStack() as opened:
        predictor = opened.enter_context(_predictor(options))
        sources = _sources(options, predictor, opened.enter_context(Inputs(_look(options))))
        wanted = Wanted(
            predictor.input_shape,
            predictor.class_labels,
            label_column=options.label_column,
            id_column=options.id_column,
            value_range=predictor.value_range,
        )
        if destination.folder is not None:
            tally, speed = _to_folder(options, destination.folder, predictor, sources, wanted)
        else:
            results = opened.enter_context(_results(options, destination, predictor, sources))
            tally = results.tally
            speed = Speed(sources, done=tally.rows)
            items = read_batches(sources, wanted, start=tally.position)
            run(items, predictor, results, speed, is_strict=options.strict)
    _tell(options, destination, predictor, tally, speed)
    return _exit_code(tally, len(sources))


def _to_folder(
    options: argparse.Namespace,
    folder: ResultFolder,
    predictor: Predictor,
    sources: Sequence[Source],
    wanted: Wanted,
) -> tuple[Tally, Speed]:
    """Write a folder of parts, by this machine or by a cluster."""
    parts = Parts(folder, _form(options, predictor))
    run_is = {
        **_run_is(options, predictor, parts.form),
        "weights": predictor.digest,
        "rows per part": options.rows_per_part,
    }
    shards = cut(_job_files(options, sources), options.rows_per_part)
    done = parts.begin(run_is, shards, resume=options.resume, overwrite=options.overwrite)
    speed = Speed(sources, done=sum(tally.rows for tally in done.values()))
    with _kept(lambda: sum(tally.rows for tally in done.values())):
        job = Job(wanted, parts)
        run_job(shards, done, job, _engine(options, predictor), speed, is_strict=options.strict)
        return parts.finish(run_is, shards, done), speed


def _job_files(options: argparse.Namespace, sources: Sequence[Source]) -> list[ImageFile]:
    """Return the files of a job, with paths that are good wherever they are read."""
    files = [source for source in sources if isinstance(source, ImageFile)]
    for file in files:
        if options.engine and isinstance(file, PipedFile):
            raise DatasetError(
                f"{file.name}: the workers of a cluster cannot read what comes through a pipe; "
                "write it to a file"
            )
    return [
        file if isinstance(file, RemoteFile) else replace(file, path=file.path.absolute())
        for file in files
    ]


def _engine(options: argparse.Namespace, predictor: Predictor) -> Engine:
    # Here, so that asking a server costs nothing of it.
    from mlpserve.client.predict.local import LocalModel  # noqa: PLC0415
    from mlpserve.client.predict.ray_engine import RayOptions, ray_engine  # noqa: PLC0415

    if not options.engine or not isinstance(predictor, LocalModel):
        return here(predictor)
    how = RayOptions(options.ray_address, options.ray_workers, options.ray_cpus)
    return ray_engine(predictor.weights, how, ood_scores=options.ood_scores)


@contextmanager
def _kept(rows: Callable[[], int]) -> Iterator[None]:
    """Say, where the block fails, how many rows are kept."""
    try:
        yield
    except BaseException:
        if count := rows():
            _say(f"{count:,} rows are kept; the same with --resume goes on")
        raise


@contextmanager
def _predictor(options: argparse.Namespace) -> Iterator[Predictor]:
    if options.models is None:
        with connected_client(options) as client:
            yield ServedModel(client, options)
        return
    # Here, so that asking a server costs nothing of it.
    from mlpserve.client.predict.local import LocalModel, read_weights  # noqa: PLC0415

    yield LocalModel(read_weights(options.models, options), ood_scores=options.ood_scores)


def _sources(options: argparse.Namespace, predictor: Predictor, inputs: Inputs) -> list[Source]:
    if not options.data:
        return inputs.sources(options.files)
    name = options.data if options.data != "auto" else _data_of_model(predictor)
    if name in DATASETS:
        return [SplitSource(name, load_test_split(name, data_dir=options.data_dir))]
    said = ReadOptions(
        label_column=options.label_column,
        shape=predictor.input_shape,
        transpose=options.transpose,
        skip_unreadable=not options.strict,
    )
    split = load_test_split(
        name, data_dir=options.data_dir, options=said, class_labels=predictor.class_labels
    )
    return [SplitSource(name, split)]


def _data_of_model(predictor: Predictor) -> str:
    # Only names of ours: a server must not choose which of our files are opened, and sent to it.
    if predictor.data_name not in DATASETS:
        raise DatasetError(
            f"--data auto: the model was trained on {predictor.data_name!r}; give that data with "
            "--data PATH"
        )
    return predictor.data_name


def _look(options: argparse.Namespace) -> Look:
    return Look(invert=options.invert, preprocess=options.preprocess)


@contextmanager
def _results(
    options: argparse.Namespace,
    destination: Destination,
    predictor: Predictor,
    sources: Sequence[Source],
) -> Iterator[Results]:
    form = _form(options, predictor)
    if destination.path is None:
        yield StreamResults(sys.stdout, destination.form, form)
        return
    run_is = {
        "input": _digest(sources),
        "form": destination.form,
        **_run_is(options, predictor, form),
    }
    with (
        FileResults(
            destination.path,
            destination.form,
            form,
            run_is,
            resume=options.resume,
            overwrite=options.overwrite,
        ) as results,
        _kept(lambda: results.tally.rows),
    ):
        yield results


def _form(options: argparse.Namespace, predictor: Predictor) -> Form:
    id_column = options.id_column or ""
    return Form(
        predictor.class_labels,
        "id" if id_column in RESERVED else id_column,
        has_ood_scores=options.ood_scores,
    )


def _run_is(options: argparse.Namespace, predictor: Predictor, form: Form) -> dict[str, str]:
    """Return what a run must share with the one that it resumes, its inputs aside."""
    return {
        "model": printable(predictor.model_name),
        "version": str(predictor.version),
        "columns": ",".join(form.columns),
        "look": str(_look(options)),
        "label column": str(options.label_column),
    }


def _digest(sources: Sequence[Source]) -> str:
    """Return what tells these inputs from others, as far as is seen from outside."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.name}\0{source.fingerprint()}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _tell(
    options: argparse.Namespace,
    destination: Destination,
    predictor: Predictor,
    tally: Tally,
    speed: "Speed",
) -> None:
    """Say what was done, beside the rows and not among them, so that a pipe gets the rows only."""
    answered = f"{printable(predictor.model_name)} version {predictor.version}"
    if destination.name is not None:
        _say(
            f"{destination.name}: {tally.rows:,} rows by {answered}, "
            f"{speed.images_per_s:,.0f} images/s"
            + (f"; {tally.warned:,} rows have a warning" if tally.warned else "")
        )
    if tally.labelled:
        what = f"the test images of {options.data}" if options.data else "the rows with a label"
        if options.data == "auto":
            what = f"the test images of {predictor.data_name}"
        print(
            f"{answered} on {what}: "
            f"accuracy {100 * tally.correct / tally.labelled:.2f} % "
            f"({tally.correct} of {tally.labelled}), {speed.images_per_s:,.0f} images/s",
            file=sys.stdout if destination.form == "table" else sys.stderr,
        )


def _exit_code(tally: Tally, sources: int) -> int:
    for _, message in tally.failures:
        _say(message)
    if not tally.failures:
        return 0
    if sources > 1:
        _say(f"{len(tally.failures)} of {sources} inputs could not be read, or not whole")
    return EXIT_SOME_FAILED if tally.rows else 1


def _say(message: str) -> None:
    print(f"{PROGRAM}: {printable(message)}", file=sys.stderr)


def _failed(message: str) -> int:
    # Sentences may be a server's, and must do nothing to the terminal.
    return failed(PROGRAM, printable(message))
