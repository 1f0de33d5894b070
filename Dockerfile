FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential cmake libcap2-bin libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive the build, the program must be taken out of them. The capability is for hosts that still keep
# ports below 1024 for root; with `--cap-drop ALL` add `--cap-add NET_BIND_SERVICE`.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release \
    && cp target/release/tollgate /usr/local/bin/tollgate \
    && setcap cap_net_bind_service=+ep /usr/local/bin/tollgate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 tollgate \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/tollgate --shell /usr/sbin/nologin tollgate \
    && install --directory --owner tollgate --group tollgate --mode 0700 /var/lib/tollgate
COPY --from=build /usr/local/bin/tollgate /usr/local/bin/tollgate
COPY LICENSE /usr/share/doc/tollgate/LICENSE
USER 10001:10001
ENV TOLLGATE_DATA_DIR=/var/lib/tollgate
VOLUME /var/lib/tollgate
EXPOSE 443 3128
# The program asks itself, so that the image needs neither a shell nor curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s CMD ["tollgate", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tollgate"]
CMD ["serve"]
