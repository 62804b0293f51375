# The server alone: it wants a PostgreSQL by DATABASE_URL. `compose.yaml` has both.

# The files of the GraphiQL page, which the build embeds.
FROM node:22-bookworm-slim AS page
WORKDIR /page
COPY web/graphiql/ ./
RUN ./fetch.sh

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
COPY --from=page /page/vendor/ web/graphiql/vendor/
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/dealstream /dealstream

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin dealstream
COPY --from=build /dealstream /usr/local/bin/dealstream
USER 10001
ENV LISTEN_ADDR=0.0.0.0:4000 LOG_FORMAT=json
EXPOSE 4000
STOPSIGNAL SIGTERM
ENTRYPOINT ["dealstream"]
CMD ["serve"]
