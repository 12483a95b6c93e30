#!/bin/sh
# Gathers what a container image of the program holds:  image-root.sh PROGRAM DIRECTORY
set -eu
program=$1 root=$2

mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs"
cp "$program" "$root/usr/local/bin/voice-otp"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
# The C libraries that it names, at the places where the loader looks for them. Names are resolved by libc itself since 2.34.
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
