"""Which pictures an output names already: what a batch need not do again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fer.inference.results import quarantine_schema, read_part, results_schema, to_csv

if TYPE_CHECKING:
    from fer.inference.outputs import Output

PARTS = "parts"
QUARANTINE = "quarantine"


class Recorded:
    """The pictures in the parts and in the quarantine of an output, by their keys.

    Args:
        sink: the output.
        model_digest: of the model that analyses; another model's rows record nothing.
        faces_digest: of the `faces` parameters and whether poses are told, likewise.
    """

    def __init__(self, sink: Output, model_digest: str, faces_digest: str) -> None:
        self.sink, self.model_digest, self.faces_digest = sink, model_digest, faces_digest
        self.analysed: set[bytes] = set()
        self.quarantined: set[bytes] = set()

    def key(self, uri: str, etag: str) -> bytes:
        """What a picture is recorded by."""
        return _digest(uri, etag, self.model_digest, self.faces_digest)

    def load(self, *, csv: bool) -> None:
        """Read the output; where `csv`, write what an earlier run did not write as CSV."""
        for folder, keys in ((PARTS, self.analysed), (QUARANTINE, self.quarantined)):
            names = self.sink.names(folder)
            for name in names:
                if not name.endswith(".parquet"):
                    continue
                where = f"{self.sink.uri}/{name}"
                schema = results_schema() if folder == PARTS else quarantine_schema()
                table = read_part(self.sink.read(name), where, schema)
                if csv and f"{name.removesuffix('.parquet')}.csv" not in names:
                    self.sink.write(f"{name.removesuffix('.parquet')}.csv", to_csv(table))
                columns = ("uri", "etag", "model_digest", "faces_digest")
                lists = (table.column(column).to_pylist() for column in columns)
                keys.update(_digest(*values) for values in zip(*lists, strict=True))


def _digest(*values: str) -> bytes:
    """16 bytes for a picture's identity: a set of them is small beside the strings."""
    return hashlib.blake2b("\0".join(values).encode(), digest_size=16).digest()
