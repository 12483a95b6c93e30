# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# Function names stay in, for backtraces; line numbers would be four fifths of the image.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# The caches stay out of the image, so the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p voice-otp-worker \
    && cp target/release/voice-otp /usr/local/bin/voice-otp
# The image holds the program, the C libraries that it is linked to, and the certificate authorities. It has no shell and no
# package manager. The empty directory is for a key: it must not exist before the copy that gives it its owner, which a new
# volume in its place takes over.
RUN scripts/image-root.sh /usr/local/bin/voice-otp /image && mkdir /image-keys

FROM scratch
COPY --from=build /image /
COPY --from=build --chown=10001:10001 /image-keys /keys
# A number, since Kubernetes' runAsNonRoot can't resolve a name.
USER 10001:10001
ENV VOICE_OTP_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/voice-otp"]
CMD ["--help"]
