# BASE is any image with Go 1.26 and a shell: name your own mirror's with --build-arg BASE=…
ARG BASE=docker.io/library/golang:1.26

FROM ${BASE} AS build
ARG GOPROXY
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" \
    -o /rootfs/freeagent-proxy ./cmd/freeagent-proxy
# What a static Go program still needs of an operating system: trusted certificates, its user's name, and a /tmp for
# request bodies that do not fit in memory.
RUN mkdir -p /rootfs/etc/ssl/certs /rootfs/etc/freeagent-proxy /rootfs/tmp /rootfs/var/lib /state/freeagent-proxy \
 && cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ \
 && echo 'freeagent-proxy:x:65532:65532::/var/lib/freeagent-proxy:/sbin/nologin' >/rootfs/etc/passwd \
 && echo 'freeagent-proxy:x:65532:' >/rootfs/etc/group \
 && chmod 1777 /rootfs/tmp && chmod 700 /state/freeagent-proxy

FROM scratch
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="freeagent-proxy" \
      org.opencontainers.image.description="Plain HTTP in, FreeAgent's API out: keeps the OAuth tokens and the rate limits" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
COPY --from=build /rootfs/ /
COPY --from=build --chown=65532:65532 /state/ /var/lib/
# The grants live here, and a refresh token works only once: keep it on a volume.
ENV STATE_DIRECTORY=/var/lib/freeagent-proxy
VOLUME /var/lib/freeagent-proxy
# config.yaml is looked for in the working directory, so mounting it here is enough.
WORKDIR /etc/freeagent-proxy
# By number, so that Kubernetes' runAsNonRoot can check it.
USER 65532:65532
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/freeagent-proxy", "healthcheck"]
ENTRYPOINT ["/freeagent-proxy"]
CMD ["serve"]
