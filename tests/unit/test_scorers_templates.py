"""An evaluation, cut into shards: resumed after a crash it gives the same report, and an error gives none."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from services.evaluator.domain import Floats, Measure, Options, Shard, class_name, plan
from services.evaluator.errors import (
    EvaluationError,
    FeatureMissing,
    FeatureNotNumeric,
    GoldenSetEmpty,
    GoldenSetUnreadable,
    LabelMissing,
    LabelUnknown,
    ModelFailed,
    NotAProbability,
    PredictionNotFinite,
    PredictionShape,
    SensitiveMissing,
    ShardsForeign,
    ShardsIncomplete,
    SingleClass,
    TaskMismatch,
    TemplateUnknown,
)
from services.evaluator.models import Model, load
from services.evaluator.templates import Assignment, GoldenSpec
from services.evaluator.templates.golden import read_golden_set
from services.evaluator.templates.report import Report, finish
from services.evaluator.templates.shards import Partial, score_shard
from shared.ids import sha256
from shared.strict_json import loads

CENSUS = Path(__file__).parents[2] / "examples" / "census" / "data"
FEATURES = ("AGEP", "MAR", "SEX", "DIS", "CIT")


def steady() -> Callable[[], float]:
    """A clock that moves a tenth of a millisecond a look."""
    ticks = count()
    return lambda: next(ticks) * 1e-4


def model_of(
    predict: Callable[[Floats], Any], features: Sequence[str] = ("x",), classes: Sequence[str] = "01"
) -> Model:
    task = "classification" if classes else "regression"
    return Model("lightgbm", task, tuple(features), tuple(classes), predict)  # type: ignore[arg-type]


def by_x(rows: Floats) -> Floats:
    """P(class 1) is the column x itself."""
    return np.column_stack([1 - rows[:, 0], rows[:, 0]])


def golden(n: int = 1000, **more: Any) -> pa.Table:
    random = np.random.default_rng(3)
    label = random.integers(0, 2, n)
    x = np.clip(0.5 + (label - 0.5) * 0.4 + random.normal(0, 0.2, n), 0.01, 0.99)
    return pa.table({"x": x, "label": label, "SEX": random.integers(1, 3, n)} | more)


def assignment(table: pa.Table, shard_rows: int = 256, **changes: Any) -> Assignment:
    given = Assignment(
        model=sha256(b"model"),
        golden_set=sha256(b"golden"),
        template="tabular-classification",
        spec=GoldenSpec("label", ("SEX",)),
        plan=plan(table.num_rows, shard_rows),
    )
    return replace(given, **changes)


def evaluated(table: pa.Table, model: Model | None = None, shard_rows: int = 256, **changes: Any) -> Report:
    given, model = assignment(table, shard_rows, **changes), model or model_of(by_x)
    return finish(given, [score_shard(given, model, table, shard, steady()) for shard in given.plan.shards])


class TestShards:
    @pytest.mark.parametrize(
        ("rows", "size", "shards"), [(0, 10, 0), (1, 10, 1), (10, 10, 1), (11, 10, 2), (95, 10, 10)]
    )
    def test_a_plan_covers_every_row_once(self, rows: int, size: int, shards: int) -> None:
        cut = plan(rows, size)
        assert len(cut.shards) == shards
        assert [row for shard in cut.shards for row in range(shard.start, shard.stop)] == list(range(rows))

    def test_after_a_crash_the_missing_shards_give_the_same_report(self) -> None:
        table, model = golden(), model_of(by_x)
        given = assignment(table)
        whole = {
            shard.index: score_shard(given, model, table, shard, steady()).to_bytes() for shard in given.plan.shards
        }
        kept = {index: data for index, data in whole.items() if index != 2}
        again = score_shard(given, model, table, given.plan.shards[2], steady()).to_bytes()
        resumed = finish(given, [Partial.from_bytes(data) for data in [again, *reversed(kept.values())]])
        assert again == whole[2]
        assert resumed.to_bytes() == finish(given, map(Partial.from_bytes, whole.values())).to_bytes()

    def test_figures_do_not_depend_on_the_cut(self) -> None:
        fine, coarse = evaluated(golden(), shard_rows=64), evaluated(golden(), shard_rows=5000)

        def figures(report: Report) -> list[Measure]:
            return [measure for measure in report.measures if not measure.name.startswith("latency")]

        assert figures(fine) == figures(coarse)

    def test_a_report_has_no_hole(self) -> None:
        table = golden()
        given = assignment(table)
        parts = [score_shard(given, model_of(by_x), table, shard, steady()) for shard in given.plan.shards]
        with pytest.raises(ShardsIncomplete):
            finish(given, parts[:-1])
        with pytest.raises(ShardsIncomplete):
            finish(given, [*parts, parts[0]])
        with pytest.raises(ShardsIncomplete):
            finish(given, [])

    @pytest.mark.parametrize(
        "other",
        [
            {"model": sha256(b"other")},
            {"golden_set": sha256(b"other")},
            {"options": Options(level=0.9)},
            {"spec": GoldenSpec("label")},
        ],
    )
    def test_shards_of_another_assignment_are_refused(self, other: dict[str, Any]) -> None:
        table = golden()
        given, foreign = assignment(table), assignment(table, **other)
        parts = [score_shard(given, model_of(by_x), table, shard, steady()) for shard in given.plan.shards[:-1]]
        parts.append(score_shard(foreign, model_of(by_x), table, given.plan.shards[-1], steady()))
        with pytest.raises(ShardsForeign):
            finish(given, parts)

    def test_bytes_that_are_no_shard(self) -> None:
        for data in (b"", b"junk", b"\x80\x04N."):
            with pytest.raises(ShardsForeign):
                Partial.from_bytes(data)

    def test_a_shard_or_golden_set_of_another_plan_is_refused(self) -> None:
        table = golden()
        with pytest.raises(ShardsForeign):
            score_shard(assignment(table), model_of(by_x), table, Shard(0, 0, 17))
        with pytest.raises(ShardsForeign):
            score_shard(assignment(table), model_of(by_x), table.slice(1), plan(1000, 256).shards[0])


class TestReport:
    def test_is_canonical_json_bound_to_what_it_measures(self) -> None:
        report = evaluated(golden())
        content = loads(report.to_bytes())
        assert report.digest == sha256(report.to_bytes())
        assert json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).count("NaN") == 0
        assert (content["model"], content["golden_set"]) == (sha256(b"model"), sha256(b"golden"))
        assert (content["rows"], content["scored"], content["positive"]) == (1000, 1000, "1")
        assert [measure["name"] for measure in content["measures"]][:5] == [
            "coverage",
            "accuracy_score",
            "roc_auc",
            "f1_score",
            "log_loss",
        ]
        assert len(content["shards"]) == 4

    def test_the_same_measurements_give_the_same_digest(self) -> None:
        assert evaluated(golden()).digest == evaluated(golden()).digest
        assert evaluated(golden()).digest != evaluated(golden(), spec=GoldenSpec("label")).digest

    def test_rows_without_a_label_lower_the_coverage_and_nothing_else(self) -> None:
        full = golden()
        labels = pa.array([None if row < 100 else value for row, value in enumerate(full["label"].to_pylist())])
        holed = evaluated(full.set_column(1, "label", labels))
        rest = evaluated(full.slice(100))
        found = {measure.name: measure for measure in holed.measures}
        assert (found["coverage"].value, found["coverage"].n) == (0.9, 1000)
        assert holed.content["without_label"] == 100
        assert found["roc_auc"] in rest.measures

    def test_regression(self) -> None:
        random = np.random.default_rng(0)
        x = random.normal(size=500)
        table = pa.table({"x": x, "label": x + random.normal(0, 0.1, 500)})
        report = evaluated(
            table,
            model_of(lambda rows: rows[:, :1], classes=""),
            template="tabular-regression",
            spec=GoldenSpec("label"),
        )
        found = {measure.name: measure.value for measure in report.measures}
        assert found["root_mean_squared_error"] == pytest.approx(0.1, rel=0.1)
        assert found["r2_score"] > 0.98

    def test_census(self) -> None:
        """LightGBM on real rows: what the README of the example says, from bytes to report."""
        train = pa.parquet.read_table(CENSUS / "train.parquet")
        data = lgb.Dataset(
            np.column_stack([train[name].to_numpy() for name in FEATURES]).astype(np.float64),
            train["employed"].to_numpy(),
            feature_name=list(FEATURES),
        )
        booster = lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1, "seed": 1}, data, 60)
        table = read_golden_set((CENSUS / "test.parquet").read_bytes(), "parquet")
        model = load(booster.model_to_string().encode(), "lightgbm", task="classification")
        report = evaluated(table, model, shard_rows=4096, spec=GoldenSpec("employed", ("SEX",)))
        found = {measure.name: measure for measure in report.measures}
        assert found["roc_auc"].low < 0.884 < found["roc_auc"].high
        assert found["accuracy_score"].low < 0.808 < found["accuracy_score"].high
        assert found["fairness.SEX=1.accuracy_score"].n + found["fairness.SEX=2.accuracy_score"].n == 20_785
        assert not report.insufficient


class TestErrors:
    """An error is never a score: each has its code, and there is no report."""

    @pytest.mark.parametrize(
        ("predict", "error"),
        [
            (lambda rows: np.full((len(rows), 2), np.nan), PredictionNotFinite),
            (lambda rows: np.full((len(rows), 2), np.inf), PredictionNotFinite),
            (lambda rows: by_x(rows)[:, :1], PredictionShape),
            (lambda rows: by_x(rows)[:-1], PredictionShape),
            (lambda rows: by_x(rows)[:, 0], PredictionShape),
            (lambda rows: by_x(rows) * 2, NotAProbability),
            (lambda rows: by_x(rows) * 0.9, NotAProbability),
            (lambda rows: by_x(rows) @ np.array([[-1, 0], [0, 2]]), NotAProbability),
            (lambda rows: 1 / 0, ModelFailed),
            (lambda rows: np.linalg.inv(np.zeros((2, 2))), ModelFailed),
        ],
    )
    def test_a_model_that_misbehaves(self, predict: Callable[[Floats], Any], error: type[EvaluationError]) -> None:
        with pytest.raises(error):
            evaluated(golden(), model_of(predict))

    def test_one_bad_row_among_a_thousand_is_enough(self) -> None:
        def predict(rows: Floats) -> Floats:
            out = by_x(rows)
            out[rows[:, 0] == rows[:, 0].max()] = np.nan
            return out

        with pytest.raises(PredictionNotFinite):
            evaluated(golden(), model_of(predict))

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"spec": GoldenSpec("truth")}, LabelMissing),
            ({"spec": GoldenSpec("label", ("RAC1P",))}, SensitiveMissing),
            ({"spec": GoldenSpec("label", (), "yes")}, LabelUnknown),
            ({"template": "tabular-regression"}, TaskMismatch),
            ({"template": "promptfoo"}, TemplateUnknown),
        ],
    )
    def test_a_manifest_that_does_not_fit(self, changes: dict[str, Any], error: type[EvaluationError]) -> None:
        with pytest.raises(error):
            evaluated(golden(), **changes)

    def test_a_golden_set_that_does_not_fit(self) -> None:
        with pytest.raises(FeatureMissing, match="'z'"):
            evaluated(golden(), model_of(by_x, features=("x", "z")))
        with pytest.raises(FeatureNotNumeric, match="'z' holds string"):
            evaluated(golden(z=["a"] * 1000), model_of(by_x, features=("x", "z")))
        with pytest.raises(LabelUnknown, match="'2'"):
            evaluated(golden(label=[0, 1, 2, 1] * 250))
        with pytest.raises(SingleClass):
            evaluated(golden(label=[1] * 1000))
        with pytest.raises(GoldenSetEmpty):
            evaluated(golden(label=pa.nulls(1000, pa.int64())))
        with pytest.raises(GoldenSetEmpty):
            evaluated(golden().slice(0, 0))

    def test_every_error_has_a_code_of_its_own_and_a_sentence(self) -> None:
        def under(kind: type[EvaluationError]) -> list[type[EvaluationError]]:
            return [kind, *(below for child in kind.__subclasses__() for below in under(child))]

        kinds = under(EvaluationError)
        assert len({kind.code for kind in kinds}) == len(kinds)
        assert all(str(kind()).endswith(".") for kind in kinds)


class TestGoldenSets:
    def test_csv_and_parquet_give_the_same_report(self) -> None:
        table, packed, text = golden(), io.BytesIO(), io.BytesIO()
        pa.parquet.write_table(table, packed)
        pa.csv.write_csv(table, text)
        reports = [
            evaluated(read_golden_set(data, format))
            for data, format in ((packed.getvalue(), "parquet"), (text.getvalue(), "csv"))
        ]
        assert reports[0].digest == reports[1].digest

    @pytest.mark.parametrize(
        ("data", "format"),
        [
            (b"", "parquet"),
            (b"PAR1junkPAR1", "parquet"),
            (b"", "csv"),
            (b"a,b\n1,2\n3\n", "csv"),
            (b"a,a\n1,2\n", "csv"),
            (b"\xff\xfe\x00a,\xffb\n\xff,\xfe\n", "xlsx"),
        ],
    )
    def test_files_that_are_none(self, data: bytes, format: str) -> None:
        with pytest.raises(GoldenSetUnreadable):
            read_golden_set(data, format)

    def test_columns_of_digits_as_text_and_codes_are_numbers(self) -> None:
        plain = golden()
        codes = pa.array([str(value) for value in plain["x"].to_pylist()]).dictionary_encode()
        assert evaluated(plain.set_column(0, "x", codes)).digest == evaluated(plain).digest

    def test_a_missing_feature_reaches_the_model_as_nan(self) -> None:
        seen: list[float] = []

        def predict(rows: Floats) -> Floats:
            seen.extend(rows[:, 1])
            return by_x(rows)

        evaluated(golden(y=pa.nulls(1000, pa.float64())), model_of(predict, features=("x", "y")))
        assert np.isnan(seen).all()

    def test_a_missing_sensitive_value_is_a_group_of_its_own(self) -> None:
        sex = pa.array([None if row % 3 == 0 else "f" if row % 3 == 1 else "m" for row in range(1000)])
        names = [measure.name for measure in evaluated(golden(SEX=sex)).measures]
        assert "fairness.SEX=(missing).accuracy_score" in names

    @pytest.mark.parametrize(
        "labels",
        [[0, 1] * 500, [0.0, 1.0] * 500, [False, True] * 500, ["0", "1"] * 500],
        ids=["int", "float", "bool", "text"],
    )
    def test_labels_mean_the_same_whatever_their_type(self, labels: list[Any]) -> None:
        assert evaluated(golden(label=labels)).digest == evaluated(golden(label=[0, 1] * 500)).digest

    def test_names_of_classes(self) -> None:
        assert [class_name(label) for label in (1, 1.0, True, "1", np.int8(1), 1.5, "yes")] == [
            *["1"] * 5,
            "1.5",
            "yes",
        ]


def test_a_slow_model_is_timed_as_often_as_the_percentiles_need_on_rows_from_everywhere() -> None:
    table, seen = golden(1000, place=np.arange(1000.0)), list[float]()

    def predict(rows: Floats) -> Floats:
        if len(rows) == 1:
            seen.append(float(rows[0, 1]))
        return by_x(rows)

    given, model = assignment(table, 1000), model_of(predict, features=("x", "place"))
    # A row takes 0.3 ms by this clock: after 0.1 s a third of the rows is timed, and 368 are needed.
    partial = score_shard(given, model, table, given.plan.shards[0], steady())
    assert len(partial.timings.single_ms) == 368
    timed = np.array(seen[-368:])
    assert len(set(timed)) == 368
    assert np.histogram(timed, bins=4, range=(0, 1000))[0].tolist() == pytest.approx([92] * 4, abs=2)
    measures = {measure.name: measure for measure in finish(given, [partial]).measures}
    assert measures["latency_ms.p99"].n == 368
