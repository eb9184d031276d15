# The recorder, for amd64 and arm64: no compiler, no root, no pip in the final image.

FROM python:3.13.14-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
# The libraries, in a virtual environment without pip: each file has the hash that the lock names.
RUN python -m venv --without-pip /opt/ess-recorder \
 && python -m pip --python /opt/ess-recorder install --only-binary :all: --require-hashes -r requirements.lock
RUN python -m pip install --only-binary :all: --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY recorder recorder
COPY config config
RUN python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/ess-recorder install --no-index --no-deps dist/*.whl

FROM python:3.13.14-slim-trixie
LABEL org.opencontainers.image.title="ess-recorder" \
      org.opencontainers.image.description="Records closed home-energy systems: strace text of their Modbus traffic in, InfluxDB and Grafana out" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --system --gid 10001 recorder \
 && useradd --system --uid 10001 --gid recorder --no-create-home --home-dir /var/lib/ess-recorder --shell /usr/sbin/nologin recorder \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/ess-recorder
COPY --from=build /opt/ess-recorder /opt/ess-recorder
ENV PATH=/opt/ess-recorder/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ESS_HTTP_BIND=0.0.0.0 ESS_DATA_DIR=/var/lib/ess-recorder
USER 10001:10001
WORKDIR /var/lib/ess-recorder
VOLUME ["/var/lib/ess-recorder"]
EXPOSE 5001 5002 8080
STOPSIGNAL SIGTERM
# urlopen raises on 503, so that Python ends with 1. Starting Python is what it costs, so once a minute.
HEALTHCHECK --interval=60s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=8)"]
ENTRYPOINT ["ess-recorder"]
CMD ["run"]
