"""``mlpserve-models verify`` and ``prune``: whether versions are good, and which are too many."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlpserve.model.commands.examination import Examined, examine, examine_all, readable_labels
from mlpserve.model.commands.lines import printable
from mlpserve.model.errors import WeightsFileError
from mlpserve.model.folder import model_names
from mlpserve.model.pruning import Pruned, prune
from mlpserve.model.references import find_version, parse_reference


def verify(options: argparse.Namespace) -> Iterator[str]:
    """Check versions, and yield what was found of each, and of the labels.

    Raises:
        WeightsFileError: A version cannot be used, or a label has no version; after all is checked.
        NoVersionError: What was named is not there.
        ModelsFolderError: A folder cannot be read.
    """
    checked = failed = 0
    for line, is_good in _checks(options):
        yield line
        checked += 1
        failed += not is_good
    if failed:
        raise WeightsFileError(f"{failed} of {checked} checks failed")


def prune_versions(options: argparse.Namespace) -> list[str]:
    """Delete old versions; return a line for each, and for what else was deleted.

    Raises:
        ModelError: There is no such model, or its folder or labels cannot be read or written.
    """
    names = model_names(options.models) if options.all else [options.name]
    done = "would be deleted" if options.dry_run else "deleted"
    return [
        f"{line}: {done}"
        for name in names
        for line in _pruned(
            name, prune(options.models, name, keep=options.keep, dry_run=options.dry_run)
        )
    ]


def _checks(options: argparse.Namespace) -> Iterator[tuple[str, bool]]:
    """Yield what was found, and whether it is good."""
    if options.model is None:
        for name in model_names(options.models):
            yield from _checks_of_model(options.models, name)
        return
    reference = parse_reference(options.model, models=options.models)
    version = find_version(reference)
    if reference.version is None and reference.label is None:
        yield from _checks_of_model(options.models, reference.name)
    else:
        yield _check(examine(options.models, reference.name, version))


def _checks_of_model(models: Path, name: str) -> Iterator[tuple[str, bool]]:
    yield from map(_check, examine_all(models, name))
    for problem in readable_labels(models, name)[1]:
        yield f"{name}: {printable(problem)}", False


def _check(found: Examined) -> tuple[str, bool]:
    if found.problem is not None:
        return f"{found.name}:{found.version}: {printable(found.problem)}", False
    has_all = (
        found.digest is not None and found.model is not None and found.model.golden is not None
    )
    remark = "" if has_all else f", but {_lacks(found)}"
    return f"{found.name}:{found.version}: good{remark}", True


def _lacks(found: Examined) -> str:
    return "without " + " and ".join(
        what
        for what, is_missing in (
            ("a digest", found.digest is None),
            ("golden samples", found.model is not None and found.model.golden is None),
        )
        if is_missing
    )


def _pruned(name: str, pruned: Pruned) -> Iterable[str]:
    yield from (f"{name}:{version}" for version in pruned.versions)
    yield from map(str, pruned.leftovers)
