# The MinIO server from its pinned Go module: the project no longer publishes images.
# About 4 minutes on 2 cores, with 4 GB of memory.

FROM golang:1.26 AS build
# The version that penstock is tested with.
ARG MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
# A mirror, where there is one: docker compose build --build-arg GOPROXY=...
ARG GOPROXY
RUN CGO_ENABLED=0 GOTOOLCHAIN=local GOBIN=/out \
    go install -trimpath -ldflags=-s "github.com/minio/minio@${MINIO_VERSION}"

# busybox, because the health check needs a wget.
FROM busybox:1.37
COPY --from=build /out/minio /usr/local/bin/minio
# A new named volume takes owner and mode from the folder that it covers.
RUN mkdir -m 0700 /data && chown 10001:10001 /data
USER 10001:10001
ENV HOME=/tmp
ENTRYPOINT ["minio"]
CMD ["server", "--quiet", "--address", ":9000", "--console-address", ":9001", "--certs-dir", "/tmp/certs", "/data"]
