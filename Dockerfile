# One image for every process of Mintmark: the six services, the gateway, the model server and `services.admin`.
#
#   docker build -t mintmark:0.1.0 .
#
# Behind a package mirror (all three are empty otherwise, and none of them reaches the final image):
#   --build-arg INDEX_URL=https://…/simple          where pip and uv look for packages
#   --build-arg CA_PEM="$(cat my-ca.pem)"           a certificate authority that the mirror's certificate needs
#   --build-arg HTTPS_PROXY=…                       Docker's own
#
# The base is plain Debian, so that it can also be made by debootstrap where no image can be pulled; Debian 12 brings
# Python 3.11. No BuildKit feature is used: any builder works.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
ARG INDEX_URL=""
ARG CA_PEM=""
ENV DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends python3 python3-venv ca-certificates \
 && if [ -n "$CA_PEM" ]; then printf '%s\n' "$CA_PEM" > /usr/local/share/ca-certificates/build.crt \
 && update-ca-certificates; fi
WORKDIR /src
COPY requirements-bootstrap.lock ./
RUN export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
 && python3 -m venv /build \
 && /build/bin/pip install --quiet --require-hashes ${INDEX_URL:+--index-url "$INDEX_URL"} -r requirements-bootstrap.lock
# Bytecode is made here, because the running container cannot write it and would compile everything at every start.
COPY requirements-image.lock ./
RUN export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
 && python3 -m venv --without-pip /opt/mintmark \
 && /build/bin/uv pip install --quiet --no-cache --python /opt/mintmark/bin/python --require-hashes --compile-bytecode \
      --only-binary :all: ${INDEX_URL:+--default-index "$INDEX_URL"} -r requirements-image.lock
COPY pyproject.toml README.md ./
COPY sdk sdk
COPY shared shared
COPY services services
COPY deploy deploy
RUN /build/bin/uv build --quiet --no-cache --offline --wheel --no-build-isolation --python /build/bin/python -o /wheels . \
 && /build/bin/uv build --quiet --no-cache --offline --wheel --no-build-isolation --python /build/bin/python -o /wheels sdk \
 && /build/bin/uv pip install --quiet --no-cache --offline --python /opt/mintmark/bin/python --no-deps --compile-bytecode /wheels/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="Mintmark" \
      org.opencontainers.image.description="The system of record for AI assets and their road to production" \
      org.opencontainers.image.licenses="Apache-2.0"
# libgomp1: LightGBM and scikit-learn. ca-certificates: S3, OIDC, Kafka and Postgres over TLS.
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3 libgomp1 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
 && groupadd --gid 10001 mintmark \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin mintmark \
 && install -d -o 10001 -g 10001 -m 0750 /data
COPY --from=build /opt/mintmark /opt/mintmark
ENV PATH=/opt/mintmark/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 HOME=/data MINTMARK_DATA=/data
# Only /data and /tmp are written: the root file system may be read-only.
WORKDIR /data
USER 10001:10001
EXPOSE 8700 8710 8711 8720
# No HEALTHCHECK: each process has its own path and port, and Compose and Kubernetes ask them.
CMD ["python", "-m", "services", "--host", "0.0.0.0", "--port", "8700"]
