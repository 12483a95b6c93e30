# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches stay out of the image, so the program is copied to where the next stage finds it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p voice-otp-worker \
    && cp target/release/voice-otp /usr/local/bin/voice-otp

# The same Debian as the build's, for the same C library.
FROM debian:12.11-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/bin/voice-otp /usr/local/bin/voice-otp
USER 10001:10001
ENV VOICE_OTP_LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/voice-otp"]
CMD ["--help"]
