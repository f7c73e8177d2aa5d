# Worker, API and command line in one image: `docker run … dispatcher --help`.
FROM python:3.12-slim AS build
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY dispatcher dispatcher
COPY config config
COPY tasks tasks
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -c constraints.txt '.[api]'

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home dispatcher
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 DISPATCHER_LOG_FORMAT=json
WORKDIR /tmp
USER 10001
STOPSIGNAL SIGTERM
CMD ["dispatcher", "worker"]
