# Worker, API and command line in one image: `docker run … dispatcher --help`.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
# requirements-otel.txt: the image can make attempts spans (docs/traces.md).
ARG REQUIREMENTS=requirements.txt
WORKDIR /app
RUN python -m venv /venv
COPY ${REQUIREMENTS} ./
RUN /venv/bin/pip install --no-cache-dir --require-hashes -r ${REQUIREMENTS}
COPY pyproject.toml README.md ./
COPY dispatcher dispatcher
COPY config config
COPY tasks tasks
RUN /venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
 && ln -s /venv/lib/python3.*/site-packages/dispatcher/_worker /venv/worker

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --no-create-home dispatcher
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 DISPATCHER_LOG_FORMAT=json
# For `celery -A tasks …` and `uvicorn tasks.asgi:app`; the command `dispatcher` needs no such help.
ENV PYTHONPATH=/venv/worker
WORKDIR /tmp
USER 10001
STOPSIGNAL SIGTERM
CMD ["dispatcher", "worker"]
