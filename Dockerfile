# One image for every process. The bases are arguments, so that the same file builds on a normal machine and in closed ones.
ARG PYTHON=python:3.11-slim-bookworm
ARG GOLANG=golang:1.26-bookworm

# Trivy from the pinned module: no downloaded binary, and never one of the compromised releases (0.69.4 to 0.69.6).
FROM ${GOLANG} AS tools
COPY tools/trivy /src/trivy
WORKDIR /src/trivy
RUN version="$(sed -n 's#^\tgithub.com/aquasecurity/trivy v\([^ ]*\).*#\1#p' go.mod)" \
 && CGO_ENABLED=0 GOEXPERIMENT=jsonv2 go build -trimpath \
      -ldflags "-s -w -X github.com/aquasecurity/trivy/pkg/version/app.ver=${version}" \
      -o /out/trivy github.com/aquasecurity/trivy/cmd/trivy

FROM ${PYTHON} AS package
COPY requirements/runtime.txt /src/requirements/runtime.txt
RUN python3 -m venv /opt/mlwarden && /opt/mlwarden/bin/pip install --no-cache-dir --require-hashes --requirement /src/requirements/runtime.txt
COPY requirements/build.txt /src/requirements/build.txt
RUN python3 -m venv /build && /build/bin/pip install --no-cache-dir --require-hashes --requirement /src/requirements/build.txt
COPY pyproject.toml README.md LICENSE /src/
COPY policies /src/policies
COPY operator /src/operator
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels /src \
 && /opt/mlwarden/bin/pip install --no-cache-dir --no-deps /wheels/*.whl \
 && /opt/mlwarden/bin/pip uninstall --yes pip

FROM ${PYTHON}
COPY --from=package /opt/mlwarden /opt/mlwarden
COPY --from=tools /out/trivy /usr/local/bin/trivy
ENV PATH=/opt/mlwarden/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["mlwarden"]
