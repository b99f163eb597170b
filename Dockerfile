# One image per role: docker build --target pipeline|mlflow|service|stream .   (docker-compose.yml builds all four)
#
# Builds with BuildKit and with the older builder that Debian's docker.io has; hence no RUN --mount and no COPY --exclude.
# A registry mirror or a company's certificates: build arguments by pip's names (PIP_INDEX_URL, PIP_CERT, ...), seen only
# by stages that are not in any image's history; or another PYTHON_IMAGE that trusts them.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What all four have: Python, an account, and the folders that volumes are mounted on, since a volume takes its owner from there.
# There is no init in them: the compose file says `init: true`; elsewhere, docker run --init.
FROM ${PYTHON_IMAGE} AS base
RUN groupadd --gid 10001 fraud \
    && useradd --uid 10001 --gid fraud --home-dir /var/lib/fraud --no-create-home --shell /usr/sbin/nologin fraud \
    && install --directory --owner=fraud --group=fraud /var/lib/fraud /var/lib/fraud/home /var/lib/fraud/checkpoints /var/lib/mlflow
COPY deploy/image/entrypoint /usr/local/bin/
ENV PATH=/app/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    DO_NOT_TRACK=true \
    MPLCONFIGDIR=/tmp/mpl \
    GIT_PYTHON_REFRESH=quiet \
    OMP_WAIT_POLICY=PASSIVE
WORKDIR /app
ENTRYPOINT ["entrypoint"]

# What installs, and is in no image.
FROM base AS installer
RUN python3 -m venv /opt/uv
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_CERT
ARG PIP_DEFAULT_TIMEOUT
RUN /opt/uv/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir uv \
    && python3 -m venv --without-pip /opt/venv
COPY deploy/image/install-lock /usr/local/bin/

# One environment per role, each upon the one before it where it has all of it: every package is fetched once.
FROM installer AS stream-packages
COPY requirements/stream.txt /tmp/
RUN install-lock -r /tmp/stream.txt

FROM stream-packages AS service-packages
COPY requirements/serving.txt /tmp/
RUN install-lock -r /tmp/serving.txt

FROM stream-packages AS pipeline-packages
COPY requirements/pipeline.txt /tmp/
RUN install-lock -r /tmp/pipeline.txt

FROM installer AS mlflow-packages
COPY requirements/mlflow.txt /tmp/
RUN install-lock -r /tmp/mlflow.txt

# This project, installed beside its pyproject.toml: Dagster looks for that above the code location.
FROM installer AS app
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY fraud_pipeline fraud_pipeline
COPY serving serving
COPY streaming streaming
RUN install-lock --target /app . && cp pyproject.toml LICENSE /app/ && rm -f /app/.lock

# Without the Dagster code location, and the kernels compiled for any processor of this kind: a cache for the very one that the
# image was built on would be passed over on another, and compiled anew at every start.
FROM stream-packages AS scoring
ENV NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_DIR=/opt/kernels
COPY --from=app /app /app
RUN rm -r /app/fraud_pipeline/defs /app/fraud_pipeline/definitions.py \
    && fraud warm

FROM base AS stream
LABEL org.opencontainers.image.title="fraud-pipeline stream" \
      org.opencontainers.image.description="Stream scorer, sink and producer of fraud-pipeline" \
      org.opencontainers.image.licenses="MIT"
ENV FRAUD_HOME=/var/lib/fraud/home \
    NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_DIR=/tmp/kernels
COPY --from=stream-packages /opt/venv /opt/venv
COPY --from=scoring /opt/kernels /opt/kernels
COPY --from=scoring /app /app
USER fraud
EXPOSE 9105 9402
CMD ["fraud", "score-stream"]

FROM base AS service
LABEL org.opencontainers.image.title="fraud-pipeline service" \
      org.opencontainers.image.description="Scoring service (REST) of fraud-pipeline" \
      org.opencontainers.image.licenses="MIT"
ENV FRAUD_HOME=/var/lib/fraud/home \
    FRAUD_REST_HOST=0.0.0.0 \
    BENTOML_HOME=/tmp/bentoml \
    BENTOML_DO_NOT_TRACK=true \
    NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_DIR=/tmp/kernels
COPY --from=service-packages /opt/venv /opt/venv
COPY --from=scoring /opt/kernels /opt/kernels
COPY --from=scoring /app /app
USER fraud
EXPOSE 3001
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s CMD ["python", "-m", "fraud_pipeline.health_check", "http", "http://127.0.0.1:3001/livez"]
CMD ["fraud", "serve"]

FROM base AS mlflow
LABEL org.opencontainers.image.title="fraud-pipeline mlflow" \
      org.opencontainers.image.description="MLflow tracking server of fraud-pipeline, with PostgreSQL's driver" \
      org.opencontainers.image.licenses="MIT"
ENV MLFLOW_DISABLE_TELEMETRY=true
COPY --from=mlflow-packages /opt/venv /opt/venv
USER fraud
EXPOSE 5000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=3)"]
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000"]

FROM base AS pipeline
LABEL org.opencontainers.image.title="fraud-pipeline pipeline" \
      org.opencontainers.image.description="Dagster code location, webserver and daemon of fraud-pipeline, and its commands" \
      org.opencontainers.image.licenses="MIT"
ENV FRAUD_HOME=/var/lib/fraud/home \
    DAGSTER_HOME=/app \
    DAGSTER_FILES_DIR=/var/lib/fraud/home/dagster-files \
    DAGSTER_DISABLE_TELEMETRY=yes \
    MLFLOW_DISABLE_TELEMETRY=true \
    NUMBA_CPU_NAME=generic \
    NUMBA_CACHE_DIR=/tmp/kernels
COPY --from=pipeline-packages /opt/venv /opt/venv
COPY --from=scoring /opt/kernels /opt/kernels
COPY --from=app /app /app
COPY dagster.yaml workspace.yaml /app/
COPY deploy/workspace.yaml /app/deploy/
USER fraud
EXPOSE 3000 4000
CMD ["python", "-m", "fraud_pipeline.code_server", "--host", "0.0.0.0", "--port", "4000"]
