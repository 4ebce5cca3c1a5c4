"""``mlpserve-models label``, ``promote``, ``rollback`` and ``prune``: changes of the folder."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from mlpserve.model.errors import NoVersionError
from mlpserve.model.folder import is_version, model_names
from mlpserve.model.labels import CANARY, read_labels, remove_label, roll_back, set_label
from mlpserve.model.pruning import Pruned, prune
from mlpserve.model.references import Reference, find_version, parse_reference
from mlpserve.model.versions import load_checked


def label_version(options: argparse.Namespace) -> list[str]:
    """Set a label, or remove one; return what it means now.

    Raises:
        ModelError: It cannot be set: there is no such version, it cannot be used, or the labels
            cannot be read or written.
    """
    if bool(options.version) == options.remove:
        options.wrong("expected VERSION and LABEL, or LABEL and --remove")
    if options.remove:
        remove_label(options.models, options.name, options.label)
        return [f"{options.name}: {options.label} is removed"]
    version = find_version(_numbered(options))
    return [_set(options.models, options.name, options.label, version)]


def promote(options: argparse.Namespace) -> list[str]:
    """Have a label mean the canary, the newest or a version that is named; return what it means.

    Raises:
        ModelError: As for ``label_version``.
    """
    version = find_version(_candidate(options))
    return [_set(options.models, options.name, options.label, version)]


def rollback(options: argparse.Namespace) -> list[str]:
    """Have a label mean what it meant before; return what that is.

    Raises:
        ModelError: There is no such label, nothing to go back to, or the labels cannot be read or
            written.
    """
    before = read_labels(options.models, options.name).get(options.label)
    version = roll_back(options.models, options.name, options.label)
    meant = f"; it meant {before.version}" if before else ""
    return [f"{options.name}: {options.label} means version {version} again{meant}"]


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


def _numbered(options: argparse.Namespace) -> Reference:
    if not is_version(options.version):
        raise NoVersionError(
            f"version: expected a number, as in 3, got {options.version[:80]!r}; have a label mean "
            "what another means with: mlpserve-models promote"
        )
    return Reference(options.models, options.name, version=int(options.version))


def _candidate(options: argparse.Namespace) -> Reference:
    if options.which is not None:
        return parse_reference(f"{options.name}:{options.which}", models=options.models)
    is_canary_meant = options.label != CANARY and CANARY in read_labels(
        options.models, options.name
    )
    return Reference(options.models, options.name, label=CANARY if is_canary_meant else None)


def _set(models: Path, name: str, label: str, version: int) -> str:
    """Set a label to a version that can be used; return what it means now."""
    load_checked(models, name, version)
    before = read_labels(models, name).get(label)
    set_label(models, name, label, version)
    if before is None:
        return f"{name}: {label} means version {version}"
    if before.version == version:
        return f"{name}: {label} means version {version} already"
    return f"{name}: {label} means version {version} now; before: {before.version}"


def _pruned(name: str, pruned: Pruned) -> Iterator[str]:
    yield from (f"{name}:{version}" for version in pruned.versions)
    yield from map(str, pruned.leftovers)
