"""Why an evaluation has no score. Each is an error with a code of its own; none of them ever becomes a number."""

from __future__ import annotations

from collections import Counter

from shared.errors import MintmarkError, Refused


class EvaluationError(Refused):
    """The version could not be measured."""

    code = "evaluation-failed"


class GoldenSetUnreadable(EvaluationError):
    """The golden set is not a readable Parquet or CSV file (for prompts: or JSON lines)."""

    code = "golden-set-unreadable"


class GoldenSetEmpty(EvaluationError):
    """The golden set has no row with a label; put rows with ground truth into its golden or test split."""

    code = "golden-set-empty"


class LabelMissing(EvaluationError):
    """The golden set has no label column; name it in the dataset's manifest."""

    code = "label-missing"


class LabelUnknown(EvaluationError):
    """The golden set has a label that the model does not know."""

    code = "label-unknown"


class SingleClass(EvaluationError):
    """Every row of the golden set has the same label, so nothing can be told apart; add rows of the other classes."""

    code = "single-class"


class FeatureMissing(EvaluationError):
    """The golden set lacks a column that the model takes."""

    code = "feature-missing"


class FeatureNotNumeric(EvaluationError):
    """A column that the model takes holds text; encode it as numbers or keep the encoding inside the model."""

    code = "feature-not-numeric"


class SensitiveMissing(EvaluationError):
    """The golden set lacks a sensitive column that its manifest names."""

    code = "sensitive-missing"


class TooManyGroups(EvaluationError):
    """A sensitive column has too many different values to compare groups by it; name a column of categories."""

    code = "too-many-groups"


class ModelRefused(EvaluationError):
    """The model file cannot be loaded."""

    code = "model-refused"


class ModelIsPickle(ModelRefused):
    """The artefact is a pickle, which runs code when it is loaded; save it as skops, ONNX or LightGBM text instead."""

    code = "model-is-pickle"


class ModelFormatUnknown(ModelRefused):
    """The model's format is not known here; use lightgbm, skops or onnx."""

    code = "model-format-unknown"


class ModelUntrusted(ModelRefused):
    """The skops file holds types that are not trusted; build the model from scikit-learn's own types."""

    code = "model-untrusted"


class FeaturesUnknown(EvaluationError):
    """The model does not name its features; submit it with a signature whose inputs name them in order."""

    code = "features-unknown"


class TaskMismatch(EvaluationError):
    """The model's task is not the template's task."""

    code = "task-mismatch"


class ModelFailed(EvaluationError):
    """The model raised an error while it predicted."""

    code = "model-failed"


class PredictionShape(EvaluationError):
    """The model returned predictions of the wrong shape."""

    code = "prediction-shape"


class PredictionNotFinite(EvaluationError):
    """The model returned NaN or infinity, which is no prediction."""

    code = "prediction-not-finite"


class NotAProbability(EvaluationError):
    """The model returned values that are not probabilities of the classes: outside 0 to 1, or not adding up to 1."""

    code = "not-a-probability"


class ShardsIncomplete(EvaluationError):
    """Not every shard of the plan is there exactly once; run the missing ones before the report."""

    code = "shards-incomplete"


class ShardsForeign(EvaluationError):
    """The shards come from different models, golden sets or plans and must not be put together."""

    code = "shards-foreign"


class TemplateUnknown(EvaluationError):
    """There is no such evaluation template."""

    code = "template-unknown"


class MeasureUndefined(EvaluationError):
    """The measure is not defined on these rows."""

    code = "measure-undefined"


class PromptUnreadable(EvaluationError):
    """The artefact is no prompt that can be rendered: not what the prompts service registers; publish it there."""

    code = "prompt-unreadable"


class VariableMissing(EvaluationError):
    """The golden set lacks a column that the prompt needs for a variable."""

    code = "variable-missing"


class RenderRefused(EvaluationError):
    """The prompt cannot be rendered with the values of a golden row."""

    code = "render-refused"


class RenderTooLarge(EvaluationError):
    """Rendering the prompt takes more time or memory than it is given."""

    code = "render-too-large"


class GatewayNotSet(EvaluationError):
    """Prompts are measured by a model behind the gateway, and none is set."""

    code = "gateway-not-set"


class AnswersRefused(EvaluationError):
    """Most rows got no answer, so there is nothing to measure."""

    code = "answers-refused"

    @classmethod
    def told(cls, model: str, reasons: Counter[str], asked: int) -> AnswersRefused:
        """Says what most of the rows without an answer met."""
        why, count = reasons.most_common(1)[0]
        return cls(
            f"{model!r} gave no answer to {reasons.total()} of {asked} rows, {count} times because of: {why}; see that "
            "the group is there, that the evaluator's key may call it, and that it takes such questions"
        )


class GatewayUnavailable(MintmarkError):
    """The gateway does not answer just now; the shard is tried again after a pause, a few times."""

    code = "gateway-unavailable"
    status = 503
