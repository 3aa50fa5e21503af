# What sends load, without what serves: Locust, numpy, our loadtest/. Built and run by docker/steps/loadtest.sh. Like the
# service's image it reads nothing from a package index: build/wheels/dev holds what it installs.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS system
ARG IMAGE_PYTHON=3.11
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python${IMAGE_PYTHON} \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/*.log
ENV LANG=C.UTF-8 \
    PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

FROM system AS dependencies
ARG IMAGE_PYTHON=3.11
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python${IMAGE_PYTHON}-venv
# The wheels are bound, not copied, so that they become no layer. Debian's pip installs the locked one first.
RUN --mount=type=bind,source=build/wheels,target=/wheels \
    --mount=type=bind,source=requirements,target=/requirements \
    python${IMAGE_PYTHON} -m venv .venv \
 && pip="python -m pip --disable-pip-version-check --no-cache-dir install --quiet --no-index --require-hashes" \
 && $pip --find-links /wheels -r /requirements/build.txt \
 && $pip --find-links /wheels --find-links /wheels/dev --no-deps -r /requirements/loadtest.txt \
 && python -m pip --disable-pip-version-check uninstall --quiet --yes setuptools wheel pip \
 && python -m compileall -q -j 0 .venv

FROM system AS image
ARG IMAGE_PYTHON=3.11
COPY --from=dependencies /app/.venv .venv
COPY app app
COPY env env
COPY models models
COPY loadtest loadtest
ARG REVISION=unknown
RUN chmod -R a+rX,go-w . \
 && python${IMAGE_PYTHON} -m compileall -q -j 0 app loadtest \
 && printf '{"revision": "%s"}\n' "$REVISION" >build-info.json
LABEL org.opencontainers.image.title="cask-loadtest" \
      org.opencontainers.image.description="Sends load to a Cask and judges it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION"
# Where Locust would keep settings of a person.
ENV HOME=/tmp
ENTRYPOINT ["python", "-m"]
CMD ["loadtest", "--help"]
