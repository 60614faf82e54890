# The image of every role: one static binary and the certificates that https
# satellites are checked against. Written for the legacy builder as well.
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS build
WORKDIR /src
# For the image's size: HTTP/2 is left out, XML-RPC has no use for it; and the
# embedded NATS server, which only `serve` runs, and what is far from a message's
# way are compiled without inlining (1.4 MB of 25).
ENV CGO_ENABLED=0 GOFLAGS="-trimpath -tags=nethttpomithttp2 \
 -gcflags=github.com/nats-io/nats-server/v2/...=-l -gcflags=google.golang.org/protobuf/...=-l \
 -gcflags=text/template/...=-l -gcflags=html/template=-l"
# Where modules come from, if not from the defaults: GOPROXY=... GOPRIVATE=...
ARG GO_SETTINGS=

# Dependencies have a layer of their own, compiled: a change of the relay's own
# code downloads nothing and compiles little.
COPY go.mod go.sum ./
RUN export $GO_SETTINGS && go mod download && go build \
	github.com/nats-io/nats-server/v2/server github.com/nats-io/nats.go/jetstream \
	github.com/prometheus/client_golang/prometheus/promhttp github.com/prometheus/client_golang/prometheus/collectors

# The version is that of the commit (a tree without its history has none), so
# that the same commit gives the same bytes, wherever it is built.
COPY . .
ARG VERSION=
RUN version=${VERSION:-$(git describe --tags --always --dirty --abbrev=12 || echo unknown)} \
 && go build -buildvcs=false \
	-ldflags "-s -w -buildid= -X github.com/co2relay/co2relay/internal/app.version=$version" -o /co2relay ./cmd/co2relay \
 && sha256sum /co2relay

FROM scratch
ARG VERSION=
LABEL org.opencontainers.image.title="co2relay" \
      org.opencontainers.image.description="relays messages between satellites over XML-RPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /co2relay /co2relay
USER 10001:10001
ENTRYPOINT ["/co2relay"]
CMD ["serve", "--data", "/data"]
