# The daemon on a small image: glibc, no shell, user 65532.
#   docker build -t lagwise .
# With Kerberos in librdkafka (sasl.mechanism GSSAPI), on Debian's slim image:
#   docker build --target gssapi -t lagwise:gssapi .
# For another architecture, amd64 or arm64:
#   docker build --platform linux/arm64 -t lagwise .
# The compilers are always those of the machine's architecture, and build for the other one. Only the packages of the
# image gssapi are installed by programs of the image's architecture, for which a machine of another one needs QEMU.
# The base images can be replaced: the first needs a toolchain, the others glibc of the same or a later version, and
# for amd64 at least 2.36.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot
ARG GSSAPI_IMAGE=docker.io/library/debian:bookworm-slim

FROM --platform=$BUILDPLATFORM ${BUILD_IMAGE} AS build
ARG TARGETARCH
# Cargo's profile, and further arguments of cargo rustc.
ARG PROFILE=production
ARG CARGO_ARGS=
WORKDIR /src
# librdkafka and its OpenSSL are built from source.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y cmake "crossbuild-essential-$TARGETARCH" g++ make perl pkg-config \
    && rm -rf /var/lib/apt/lists/*
# Build the dependencies first, so that their layer is reused while the sources change.
COPY .cargo ./.cargo
COPY .ci/cross-build ./.ci/cross-build
COPY Cargo.toml Cargo.lock ./
# hadolint ignore=SC2086
RUN mkdir -p src benches/sweep tests/e2e \
    && for file in src/main.rs benches/api.rs benches/hpas.rs benches/model.rs benches/page.rs benches/simulate.rs benches/sweep/main.rs tests/e2e/main.rs; \
        do echo 'fn main() {}' >"$file"; done \
    && touch src/lib.rs \
    && .ci/cross-build "$TARGETARCH" "$PROFILE" $CARGO_ARGS \
    && rm -rf src benches tests
COPY src ./src
# Cargo requires the source files of all targets. The placeholders must be older than the real files.
COPY benches ./benches
COPY tests ./tests
# hadolint ignore=SC2086
RUN touch src/main.rs src/lib.rs \
    && .ci/cross-build "$TARGETARCH" "$PROFILE" $CARGO_ARGS

# Set explicitly, because buildah would use the platform of the stage above.
FROM --platform=$TARGETPLATFORM ${RUNTIME_IMAGE} AS plain
COPY --from=build /out/lagwise /usr/local/bin/lagwise
USER 65532:65532
EXPOSE 6443 8080 8081
ENTRYPOINT ["/usr/local/bin/lagwise"]
CMD ["run", "--config", "/etc/lagwise/lagwise.yaml"]

FROM build AS build-gssapi
ARG TARGETARCH
ARG PROFILE=production
ARG CARGO_ARGS=
# hadolint ignore=DL3008
RUN dpkg --add-architecture "$TARGETARCH" \
    && apt-get update \
    && apt-get install --no-install-recommends -y "libsasl2-dev:$TARGETARCH" \
    && rm -rf /var/lib/apt/lists/*
# hadolint ignore=SC2086
RUN .ci/cross-build "$TARGETARCH" "$PROFILE" --features gssapi $CARGO_ARGS

FROM --platform=$TARGETPLATFORM ${GSSAPI_IMAGE} AS gssapi
# libsasl2 with its Kerberos plugin, and kinit, which librdkafka runs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y ca-certificates krb5-user libsasl2-2 libsasl2-modules-gssapi-mit \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-gssapi /out/lagwise /usr/local/bin/lagwise
USER 65532:65532
EXPOSE 6443 8080 8081
ENTRYPOINT ["/usr/local/bin/lagwise"]
CMD ["run", "--config", "/etc/lagwise/lagwise.yaml"]

# The last stage is the one that is built by default.
FROM plain
