# A node as an ordinary user. Without user namespaces inside the container (Docker's default) the strict sandbox does not hold,
# so such a node submits and serves its own jobs but runs no foreign ones; `p2pq doctor` says so. To run foreign jobs:
#   docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined ...
#
#   docker build -t p2pq .
#   docker run --network host -v p2pq:/var/lib/p2pq p2pq

FROM python:3.12-slim-bookworm

RUN apt-get update \
 && apt-get install -y --no-install-recommends bubblewrap \
 && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE /src/
COPY p2pq /src/p2pq
RUN pip install --no-cache-dir /src && rm -rf /src

RUN useradd --uid 1000 --create-home p2pq \
 && install -d -o p2pq -g p2pq -m 700 /var/lib/p2pq
USER p2pq
WORKDIR /home/p2pq
ENV P2PQ_HOME=/var/lib/p2pq
VOLUME ["/var/lib/p2pq"]
EXPOSE 9476

ENTRYPOINT ["p2pq", "node", "--listen", "0.0.0.0:9476"]
