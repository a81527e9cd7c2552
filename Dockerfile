# The service in a slim image: the wheel is built in the first stage, the second holds only what runs.
#   docker build -t certes .   docker run -p 8080:8080 -v certes:/var/lib/certes certes
#   docker run --rm -v certes:/var/lib/certes certes certes keys create --tenant me
FROM python:3.11-slim AS builder
WORKDIR /src
COPY constraints.txt ./
RUN python -m pip install --no-cache-dir -c constraints.txt setuptools wheel
COPY pyproject.toml README.md LICENSE ./
COPY solvers solvers
COPY service service
COPY clients clients
RUN python -m pip wheel --no-build-isolation --no-deps --wheel-dir dist .
RUN python -m venv /opt/certes \
    && /opt/certes/bin/python -m pip install --no-cache-dir -c constraints.txt "$(echo dist/certes-*.whl)[service,s3,sdp,exact,figures]"

FROM python:3.11-slim
ENV PATH=/opt/certes/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1
RUN useradd --system --uid 10001 --home-dir /var/lib/certes --create-home certes
COPY --from=builder /opt/certes /opt/certes
WORKDIR /var/lib/certes
VOLUME /var/lib/certes
USER certes
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["certes", "serve", "--host", "0.0.0.0", "--port", "8080", "--keys", "--data", "/var/lib/certes"]
