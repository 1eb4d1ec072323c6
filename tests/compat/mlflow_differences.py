"""Where we answer otherwise than MLflow's server, and why. docs/how-to/from-mlflow.md shows the same table."""

from __future__ import annotations

# (scenario, check): why. A check that stands here and does not differ fails the test, too.
DIFFERENCES: dict[tuple[str, str], str] = {
    (
        "aliases",
        "digits can be set",
    ): "An alias of digits is refused: beside version 17, an alias `17` is an accident that waits.",
    (
        "stages",
        "archiving with no active stage",
    ): "Wrong parameters are INVALID_PARAMETER_VALUE (400), where MLflow answers with INTERNAL_ERROR (500).",
    (
        "stages",
        "two in production",
    ): "One version is in production. Who enters sends the other to `monitoring`, Archived to MLflow's client.",
    (
        "experiments",
        "renamed to a taken name",
    ): "RESOURCE_ALREADY_EXISTS, as for a new experiment, where MLflow answers with BAD_REQUEST and SQL.",
    (
        "files",
        "the root",
    ): "An empty file has the size 0, where MLflow shows none.",
}
