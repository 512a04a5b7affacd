# syntax=docker/dockerfile:1

# The builder has pip and the sources; the image that runs has neither.
FROM python:3.13-slim AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/kvstore
WORKDIR /src

# The libraries change less often than the code: a layer of their own, which stays cached.
COPY requirements.lock .
RUN /opt/kvstore/bin/pip install --only-binary=:all: -r requirements.lock

COPY pyproject.toml LICENSE ./
COPY raft raft
COPY wal wal
COPY kvstore kvstore
RUN /opt/kvstore/bin/pip install --no-deps --no-build-isolation . \
    && /opt/kvstore/bin/pip uninstall --yes setuptools pip \
    && /opt/kvstore/bin/python -m compileall -q /opt/kvstore/lib


FROM python:3.13-slim

LABEL org.opencontainers.image.title="kvstore" \
      org.opencontainers.image.description="A key-value store on Raft that speaks etcd's v3 API" \
      org.opencontainers.image.licenses="MIT"

# A fixed id, so that a volume keeps its owner from one image to the next.
RUN groupadd --gid 10001 kvstore \
    && useradd --uid 10001 --gid kvstore --no-create-home --shell /usr/sbin/nologin kvstore \
    && install -d -o kvstore -g kvstore -m 0700 /var/lib/kvstore

COPY --from=builder /opt/kvstore /opt/kvstore

ENV PATH=/opt/kvstore/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ETCD_DATA_DIR=/var/lib/kvstore \
    ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379 \
    ETCD_LISTEN_PEER_URLS=http://0.0.0.0:2380

USER kvstore
VOLUME /var/lib/kvstore
EXPOSE 2379 2380

# http.client alone: importing the server for a probe every few seconds would cost more than serving.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 2379, timeout=2); c.request('GET', '/health'); r = c.getresponse(); raise SystemExit(r.status != 200)"]

# SIGTERM hands leadership on and closes the log cleanly; `exec` form, so that it reaches the node.
STOPSIGNAL SIGTERM
ENTRYPOINT ["kvstore"]
CMD ["serve"]
