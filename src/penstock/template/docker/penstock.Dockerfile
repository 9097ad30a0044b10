# This project with penstock and Prefect's server, both from uv.lock. Built by docker-compose.yml with the project's
# folder as context.

FROM python:3.13-slim AS build
# A lock file of revision 5 is written by uv 0.13.
RUN pip install --no-cache-dir "uv>=0.13,<0.14"
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/app/.venv
WORKDIR /build
# A wheel of penstock is here only where the project brings it; a checkout, which is elsewhere, cannot be built in.
COPY pyproject.toml uv.lock *.whl ./
RUN uv sync --frozen --no-dev --extra postgres --compile-bytecode
COPY flows /app/flows
COPY sensors /app/sensors
COPY webhook /app/webhook
COPY automations /app/automations
COPY docker/worker_health.py /app/docker/
# The host's umask must not decide who reads it here.
RUN chmod -R a+rX,go-w /app

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/penstock penstock \
    # A new named volume takes owner and mode from the folder that it covers.
    && install -d -o penstock -g penstock -m 0700 /var/lib/penstock /warehouse
WORKDIR /app
COPY --from=build /app /app
# The bytecode is compiled above, and the root file system is read-only.
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/var/lib/penstock \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PENSTOCK_PROJECT_DIR=/app \
    PENSTOCK_HOME=/var/lib/penstock
USER 10001:10001
CMD ["penstock", "--help"]
