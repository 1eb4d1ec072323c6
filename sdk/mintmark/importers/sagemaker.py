"""A SageMaker model registry: groups and their model packages, with approval status, metrics and lineage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mintmark.importers.found import (
    FoundAsset,
    FoundVersion,
    SourceFailed,
    Wanted,
    fingerprint,
    without_nothing,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PAGES = 10_000
MOST_SOURCES = 200


class SageMaker:
    """Region and credentials are those of boto3: environment, profile, or role."""

    kind = "sagemaker"

    def __init__(self, *, region: str | None = None, endpoint: str | None = None, name: str | None = None) -> None:
        try:
            import boto3
        except ImportError:
            raise ValueError("this needs boto3: pip install boto3") from None
        from botocore.config import Config

        config = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60)
        self._api: Any = boto3.client("sagemaker", region_name=region, endpoint_url=endpoint, config=config)
        self.name = name or str(self._api.meta.region_name)
        self._groups: list[dict[str, Any]] | None = None
        self._has_lineage = True

    def count(self) -> int | None:
        return None if self._groups is None else len(self._groups)

    def assets(self, wanted: Wanted) -> Iterator[FoundAsset]:
        """By the groups' names."""
        found = self._all(self._api.list_model_package_groups, "ModelPackageGroupSummaryList")
        self._groups = [one for one in found if wanted(str(one["ModelPackageGroupName"]))]
        for group in sorted(self._groups, key=lambda one: str(one["ModelPackageGroupName"])):
            yield self._asset(group)

    def _all(self, ask: Callable[..., dict[str, Any]], key: str, **query: Any) -> list[dict[str, Any]]:
        """The entries of every page. Raises SourceFailed."""
        found: list[dict[str, Any]] = []
        token: str | None = None
        for _ in range(MOST_PAGES):
            answer = self._ask(ask, **query, **({"NextToken": token} if token else {}))
            found += answer.get(key) or []
            following = answer.get("NextToken")
            if not following:
                return found
            if following == token:
                break
            token = following
        raise SourceFailed("SageMaker pages for ever")

    def _ask(self, ask: Callable[..., dict[str, Any]], **query: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return ask(**query)
        except (BotoCoreError, ClientError) as error:
            raise SourceFailed(f"SageMaker: {str(error)[:500]}") from error

    def _asset(self, group: dict[str, Any]) -> FoundAsset:
        name, arn = str(group["ModelPackageGroupName"]), str(group["ModelPackageGroupArn"])
        packages = self._all(self._api.list_model_packages, "ModelPackageSummaryList", ModelPackageGroupName=name)
        document = without_nothing(
            {
                "id": arn,
                "kind": "model",
                "title": name,
                "description": group.get("ModelPackageGroupDescription"),
                "tags": self._tags(arn),
                "created_at": _moment(group.get("CreationTime")),
            }
        )
        found = [self._version(str(package["ModelPackageArn"])) for package in packages]
        return FoundAsset(document, sorted(found, key=lambda version: version.document["number"]))

    def _tags(self, arn: str) -> dict[str, str]:
        pairs = self._all(self._api.list_tags, "Tags", ResourceArn=arn)
        return {str(pair["Key"]): str(pair["Value"]) for pair in pairs}

    def _version(self, arn: str) -> FoundVersion:
        said = self._ask(self._api.describe_model_package, ModelPackageName=arn)
        number = said.get("ModelPackageVersion")
        if not isinstance(number, int):
            raise SourceFailed(f"{arn} has no version number")
        containers = (said.get("InferenceSpecification") or {}).get("Containers") or []
        model = next((str(one["ModelDataUrl"]) for one in containers if one.get("ModelDataUrl")), None)
        made_by = said.get("MetadataProperties") or {}
        job = str(made_by.get("GeneratedBy") or "")
        tags = {str(key): str(value) for key, value in (said.get("CustomerMetadataProperties") or {}).items()}
        # An approval there is no approval here: it is kept as what it is, and moves no stage.
        tags |= without_nothing(
            {
                "sagemaker.approval-status": said.get("ModelApprovalStatus"),
                "sagemaker.approval": said.get("ApprovalDescription"),
                "sagemaker.commit": made_by.get("CommitId"),
                "sagemaker.repository": made_by.get("Repository"),
                "sagemaker.image": next((one.get("Image") for one in containers), None),
            }
        )
        tags |= {f"sagemaker.{name}": uri for name, uri in _addresses(said.get("ModelMetrics") or {})}
        document = without_nothing(
            {
                "id": arn,
                "fingerprint": fingerprint(containers, str(said.get("CreationTime"))),
                "number": number,
                "registered_at": _moment(said.get("CreationTime")),
                "updated_at": _moment(said.get("LastModifiedTime")),
                "author": (said.get("CreatedBy") or {}).get("UserProfileName"),
                "description": said.get("ModelPackageDescription"),
                "tags": tags,
                "source": {"uri": model or arn},
                "run_id": job.rpartition("/")[2] or None,
                "task": str(said["Task"]).lower()[:60] if said.get("Task") else None,
                "lineage": self._lineage(arn),
            }
        )
        return FoundVersion(document)

    def _lineage(self, arn: str) -> list[dict[str, str]]:
        """What SageMaker says the package comes from; nothing where its API does not answer that."""
        if not self._has_lineage:
            return []
        try:
            artifacts = self._all(self._api.list_artifacts, "ArtifactSummaries", SourceUri=arn)
            found = [
                {"node": str(one["SourceArn"])[:500], "association": str(one.get("AssociationType", "ContributedTo"))}
                for artifact in artifacts
                for one in self._all(
                    self._api.list_associations, "AssociationSummaries", DestinationArn=artifact["ArtifactArn"]
                )
            ]
        except SourceFailed:
            self._has_lineage = False
            return []
        return found[:MOST_SOURCES]


def _addresses(metrics: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """`ModelQuality.Statistics` and the like with the addresses of their files."""
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from _addresses(value, f"{path}{key}.")
        elif key == "S3Uri":
            yield f"{path.rstrip('.')}", str(value)


def _moment(at: Any) -> str | None:
    return at.isoformat() if isinstance(at, datetime) and at.tzinfo else None
