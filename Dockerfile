# The last stage is the image of every Airflow role in the cluster; `local` is the image of the servers in the profile
# `local`. Both install from requirements.lock with its hashes, and add no Debian package to the base image.
#
#   docker build -t callphases .
#   docker build -t callphases-local --target local .
#
# For another package index, pass --build-arg PIP_INDEX_URL=… --build-arg UV_DEFAULT_INDEX=… without a password: the
# image's history shows build arguments.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV PATH=/build/bin:$PATH UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /src
COPY requirements.lock pyproject.toml ./
COPY include/speechbox/pyproject.toml include/speechbox/
# uv comes from the lock too.
RUN python -m venv /build \
    && awk '/^[^ ]/ {wanted = /^uv==/} wanted' requirements.lock > uv.lock \
    && pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r uv.lock
# The parts of the lock for each image and for the build. uv takes versions and hashes from an existing output file, so
# starting from a copy of the lock adds nothing to it.
RUN part() { \
        out=$1; shift; cp requirements.lock $out; \
        uv pip compile "$@" --constraint requirements.lock --universal --python-version 3.11 \
            --generate-hashes --no-header --no-annotate --quiet --output-file $out; \
    } \
    && part cluster.lock pyproject.toml --extra airflow --extra audio --extra celery --group postgres \
    && part local.lock pyproject.toml include/speechbox/pyproject.toml --group demo \
    && echo hatchling > build.in && part build.lock build.in \
    && uv pip install --quiet --python /build/bin/python --require-hashes -r build.lock
COPY README.md LICENSE ./
COPY include/callphases include/callphases
COPY include/pipelines include/pipelines
COPY include/sql include/sql
COPY include/speechbox include/speechbox
RUN uv build --quiet --wheel --no-build-isolation --out-dir /wheels \
    && uv build --quiet --wheel --no-build-isolation --out-dir /wheels include/speechbox

FROM build AS build-local
RUN python -m venv --without-pip /opt/venv \
    && uv pip sync --quiet --python /opt/venv/bin/python --require-hashes --compile-bytecode local.lock \
    && uv pip install --quiet --python /opt/venv/bin/python --no-deps --compile-bytecode /wheels/*.whl

FROM build AS build-cluster
RUN python -m venv --without-pip /opt/venv \
    && uv pip sync --quiet --python /opt/venv/bin/python --require-hashes --compile-bytecode cluster.lock \
    && uv pip install --quiet --python /opt/venv/bin/python --no-deps --compile-bytecode /wheels/callphases-*.whl

# Any other user id works too, as long as its group is 0.
FROM ${BASE} AS user
RUN useradd --uid 50000 --gid 0 --home-dir /opt/airflow --no-create-home --shell /bin/bash airflow \
    && install -d -o airflow -g 0 -m 775 /opt/airflow /opt/airflow/logs /opt/airflow/dags /opt/airflow/pipelines /data
ENV PATH=/opt/venv/bin:$PATH HOME=/opt/airflow USER=airflow PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY deploy/entrypoint.sh /entrypoint
COPY deploy/healthy.py /opt/healthy.py
WORKDIR /opt/airflow
USER 50000:0
ENTRYPOINT ["/entrypoint"]

# speechbox with its models, an S3 server, and the demo's recordings.
FROM user AS local
ENV CALLPHASES_HOME=/data ORT_DISABLE_TELEMETRY=1
COPY --from=build-local /opt/venv /opt/venv
COPY demo demo
COPY include/samples/audio include/samples/audio

# API server, scheduler, Dag processor, triggerer, and worker.
FROM user AS cluster
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    CALLPHASES_PIPELINES=/opt/airflow/pipelines
COPY --from=build-cluster /opt/venv /opt/venv
COPY dags dags
CMD ["airflow", "version"]
