FROM debian:bookworm-slim
RUN <<EOF
set -e
echo first
false
EOF
