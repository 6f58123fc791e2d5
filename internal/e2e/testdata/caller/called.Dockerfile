FROM debian:bookworm-slim
ARG SAYS
RUN --mount=type=secret,id=token,required=true test "$(cat /run/secrets/token)" = "of the caller" && echo "$SAYS" > /built
CMD ["sleep", "60"]
