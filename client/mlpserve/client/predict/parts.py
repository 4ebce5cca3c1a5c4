"""Parts: a folder of Parquet files, one for each shard, which any machine can add to.

    _run.json                                    what the job is, from its beginning
    part-0000000-000000262144-3f9c....parquet    the rows of a shard; appears whole, or not at all
    _manifest.json                               once all parts are there: the job is finished

A part holds its own tally, so nothing else has to be kept in step with it. A shard's part has the
same name and the same bytes whoever writes it, so one that is written twice is there once. Readers
of Parquet leave out names with an underscore.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

from mlpserve.client.predict.folders import ResultFolder
from mlpserve.client.predict.outputs import Form
from mlpserve.client.predict.parquet import part_content, part_facts
from mlpserve.client.predict.shards import Shard
from mlpserve.client.predict.tally import ResultsError, Tally, writing
from mlpserve.datasets import DatasetError
from mlpserve.model.atomic_files import TEMPORARY_PREFIX

RUN_NAME: Final = "_run.json"
MANIFEST_NAME: Final = "_manifest.json"
_PREFIX, _SUFFIX = "part-", ".parquet"
_AT_ONCE: Final = 16  # parts whose ends are read, because each may wait for the network


@dataclass(frozen=True)
class Parts:
    """The parts in a folder; it can be sent to other machines.

    Its methods raise ``StoreError`` where the folder is in a store that is away.

    Attributes:
        folder: Where they are.
        form: How rows are written.
    """

    folder: ResultFolder
    form: Form

    def write(self, shard: Shard, tables: Sequence[Any], tally: Tally) -> None:
        """Write the part of a shard.

        Raises:
            ResultsError: It cannot be written.
        """
        facts = asdict(tally)
        del facts["position"]
        content = part_content(tables, self.form, json.dumps(facts).encode())
        with writing(self.folder):
            self.folder.write(shard.name, content)

    def begin(
        self, run: Mapping[str, Any], shards: Sequence[Shard], *, resume: bool, overwrite: bool
    ) -> dict[str, Tally]:
        """Make the folder ready for a job; return the tallies of the parts that need not be done.

        Args:
            run: What a job must share with the one that it resumes: names and values.
            shards: Its shards.
            resume: Whether to go on with what an earlier job has left.
            overwrite: Whether to delete what one has left.

        Raises:
            ResultsError: The folder holds something, and neither flag says what to do; or it is of
                another job; or it cannot be written.
        """
        with writing(self.folder):
            self.folder.make()
            names = self.folder.names()
            self._check_ours(names, resume=resume, overwrite=overwrite)
            done: dict[str, Tally] = {}
            if overwrite:
                # The manifest first: a folder that has it is whole.
                ours = [name for name in sorted(names) if _is_ours(name)]
                self.folder.delete(ours)
            elif RUN_NAME in names:
                self._check_run(run)
                done = self._finished(names, {shard.name for shard in shards})
                self.folder.delete({MANIFEST_NAME} & names)
            self.folder.write(RUN_NAME, _json(run))
        return done

    def abandon(self) -> None:
        """Forget a job that has written nothing, so that it may be begun like a new one.

        Raises:
            ResultsError: The folder cannot be changed.
        """
        with writing(self.folder):
            if self.folder.names() == {RUN_NAME}:
                self.folder.delete([RUN_NAME])

    def finish(
        self, run: Mapping[str, Any], shards: Sequence[Shard], tallies: Mapping[str, Tally]
    ) -> Tally:
        """Write the manifest, after a look whether all is there; return the tally of all parts.

        Raises:
            ResultsError: A part is missing, or another job has taken the folder.
        """
        with writing(self.folder):
            self._check_run(run)
            names = self.folder.names()
            missing = [shard.name for shard in shards if shard.name not in names]
            if missing:
                raise ResultsError(
                    f"{self.folder}: {len(missing)} parts that were written are gone, the first is "
                    f"{missing[0]}; --resume writes them again"
                )
            self.folder.delete(name for name in names if name.startswith(TEMPORARY_PREFIX))
            total = Tally()
            for shard in shards:
                total.merge(tallies[shard.name])
            self.folder.write(MANIFEST_NAME, _json(_manifest(run, shards, tallies, total)))
        return total

    def _check_ours(self, names: Iterable[str], *, resume: bool, overwrite: bool) -> None:
        foreign = sorted(name for name in names if not _is_ours(name))
        if foreign:
            raise ResultsError(
                f"{self.folder}: expected a new folder or one of an earlier prediction, but "
                f"{foreign[0]!r} is in it; name another folder"
            )
        if not resume and not overwrite and MANIFEST_NAME in names:
            raise ResultsError(f"{self.folder}: is there already; --overwrite replaces it")
        if not resume and not overwrite and names:
            raise ResultsError(
                f"{self.folder}: is left of a run that did not end; --resume goes on with it, "
                "--overwrite begins anew"
            )

    def _check_run(self, run: Mapping[str, Any]) -> None:
        with self.folder.open(RUN_NAME) as file:
            try:
                found = json.load(file)
            except ValueError:
                found = {}
        for name, value in json.loads(_json(run)).items():
            if found.get(name) != value:
                raise ResultsError(
                    f"{self.folder}: is of a run with another {name}, {found.get(name)}, not "
                    f"{value}; --overwrite begins anew"
                )

    def _finished(self, names: Iterable[str], wanted: set[str]) -> dict[str, Tally]:
        """Return the tallies of the parts that are there; those with failures are done again."""
        found = sorted(name for name in names if name.startswith(_PREFIX))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            tallies = dict(zip(found, pool.map(self._tally, found), strict=True))
        whole = {name: tally for name, tally in tallies.items() if tally and not tally.failures}
        if others := sorted(whole.keys() - wanted):
            raise ResultsError(
                f"{self.folder}: {len(others)} parts are of other inputs, or of inputs that have "
                f"changed since, the first is {others[0]}; --overwrite begins anew"
            )
        self.folder.delete(tallies.keys() - wanted)
        return whole

    def _tally(self, name: str) -> Tally | None:
        """Return the tally of a part; None where it is damaged."""
        try:
            with self.folder.open(name) as file:
                facts = json.loads(part_facts(file))
        except (DatasetError, ValueError):
            return None
        return Tally(**facts | {"failures": [tuple(failure) for failure in facts["failures"]]})


def _is_ours(name: str) -> bool:
    is_part = name.startswith(_PREFIX) and name.endswith(_SUFFIX)
    return is_part or name in {RUN_NAME, MANIFEST_NAME} or name.startswith(TEMPORARY_PREFIX)


def _manifest(
    run: Mapping[str, Any], shards: Sequence[Shard], tallies: Mapping[str, Tally], total: Tally
) -> dict[str, Any]:
    parts = [
        {
            "part": shard.name,
            "source": shard.sources[0].name,
            "sources": len(shard.sources),
            "first_row": shard.first_row,
            "rows": tallies[shard.name].rows,
        }
        for shard in shards
    ]
    counts = {key: value for key, value in asdict(total).items() if key != "position"}
    return {**run, **counts, "parts": parts}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"
