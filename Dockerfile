# The daemon on a small image: glibc, no shell, user 65532.
#   docker build -t lagwise .
# Both base images can be replaced: the first needs a toolchain, the second glibc of the same or a later version.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# librdkafka and its OpenSSL are built from source.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y cmake g++ make perl pkg-config \
    && rm -rf /var/lib/apt/lists/*
# Build the dependencies first, so that their layer is reused while the sources change.
COPY .cargo ./.cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/sweep tests/e2e tests/wire \
    && for file in src/main.rs benches/api.rs benches/hpas.rs benches/model.rs benches/sweep/main.rs tests/e2e/main.rs tests/wire/main.rs; \
        do echo 'fn main() {}' >"$file"; done \
    && touch src/lib.rs \
    && cargo build --release --locked --bin lagwise \
    && rm -rf src benches tests
COPY src ./src
# Cargo requires the source files of all targets. The placeholders must be older than the real files.
COPY benches ./benches
COPY tests ./tests
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --bin lagwise

FROM ${RUNTIME_IMAGE}
COPY --from=build /src/target/release/lagwise /usr/local/bin/lagwise
USER 65532:65532
EXPOSE 6443 8080 8081
ENTRYPOINT ["/usr/local/bin/lagwise"]
CMD ["run", "--config", "/etc/lagwise/lagwise.yaml"]
