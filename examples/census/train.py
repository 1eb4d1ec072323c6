"""Trains the example's three candidates, as an upstream pipeline would: it knows LightGBM and the data, nothing else.

    python examples/census/train.py [--out FOLDER]    # default: ./candidates

- `employment-5`         five features, a fair first model
- `employment-16`        all sixteen, a true improvement
- `employment-shuffled`  all sixteen, but its labels were shuffled: the model that must not get through

The same data, LightGBM version and number of threads give the same bytes. Takes about two seconds on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import accuracy_score, roc_auc_score

DATA = Path(__file__).parent / "data"
LABEL = "employed"
# fmt: off
ALL_FEATURES = (
    "AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG",
    "MIL", "ANC", "NATIVITY", "DEAR", "DEYE", "DREM", "SEX", "RAC1P",
)
# fmt: on
FIVE_FEATURES = ("AGEP", "MAR", "SEX", "DIS", "CIT")

ROUNDS = 100
SEED = 20151
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "num_threads": 1,  # two wait for one another where something else runs beside them: ten times as long
    "seed": SEED,
    # Histograms are summed in the same order on every run only when both of these are set.
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}


@dataclass(frozen=True)
class Candidate:
    """One trained model with what it scored on the test rows."""

    name: str
    features: tuple[str, ...]
    model: str
    auc: float
    accuracy: float
    seconds: float

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.model.encode()).hexdigest()


def matrix(rows: pa.Table, features: tuple[str, ...]) -> np.ndarray:
    """The columns `features` as a float matrix [rows, features]."""
    return np.column_stack([rows[name].to_numpy().astype(np.float64) for name in features])


def train(
    name: str, features: tuple[str, ...], train_rows: pa.Table, test_rows: pa.Table, *, shuffle: bool
) -> Candidate:
    """One LightGBM classifier for `employed`; with `shuffle` it learns from labels that belong to other rows."""
    started = time.perf_counter()
    labels = train_rows[LABEL].to_numpy()
    if shuffle:
        labels = np.random.default_rng(SEED).permutation(labels)
    data = lgb.Dataset(matrix(train_rows, features), labels, feature_name=list(features))
    booster = lgb.train(PARAMETERS, data, num_boost_round=ROUNDS)
    truth = test_rows[LABEL].to_numpy()
    scores = np.asarray(booster.predict(matrix(test_rows, features), num_threads=1))
    return Candidate(
        name=name,
        features=features,
        model=booster.model_to_string(),
        auc=float(roc_auc_score(truth, scores)),
        accuracy=float(accuracy_score(truth, scores > 0.5)),
        seconds=time.perf_counter() - started,
    )


def candidates(data: Path = DATA) -> list[Candidate]:
    """All three, trained on `train.parquet` and scored on `test.parquet` of the folder `data`."""
    train_rows, test_rows = pq.read_table(data / "train.parquet"), pq.read_table(data / "test.parquet")
    return [
        train("employment-5", FIVE_FEATURES, train_rows, test_rows, shuffle=False),
        train("employment-16", ALL_FEATURES, train_rows, test_rows, shuffle=False),
        train("employment-shuffled", ALL_FEATURES, train_rows, test_rows, shuffle=True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("candidates"), help="folder for the LightGBM model files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for candidate in candidates():
        # Bytes, not text: the digest must not depend on how a platform ends its lines.
        (out / f"{candidate.name}.txt").write_bytes(candidate.model.encode())
        print(
            f"{candidate.name:20} {len(candidate.features):2} features  AUC {candidate.auc:.4f}  accuracy"
            f" {candidate.accuracy:.4f}  {candidate.seconds:.1f} s  {candidate.digest}"
        )


if __name__ == "__main__":
    main()
