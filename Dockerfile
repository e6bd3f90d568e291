# The provisioner's image: Debian's Python, the packages that requirements.txt pins, and the provisioner.
#   docker build .     in any checkout; pip reads the packages from the package index that it is configured for
#   docker/build.sh    puts all wheels into dist/image first, so that pip needs no index in the build

# Debian's Python without the parts that only its developers use, and without Debian's bytecode of the whole library:
# the build stage compiles the modules that the provisioner imports.
FROM debian:trixie-slim AS python
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /usr/lib/python3.*/pydoc_data /usr/lib/python3.*/lib-dynload/*_*test* \
 && find /usr/lib/python3* -name __pycache__ -prune -exec rm -r {} + \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/*

FROM python AS build
ENV PYTHONDONTWRITEBYTECODE=1
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils python3-pip python3-setuptools python3-venv \
 && python3 -m venv --without-pip /opt/nfs-provisioner
# A pattern that matches nothing copies nothing: the wheels of docker/build.sh may be missing.
COPY requirements.txt dist/image/package[s] /wheels/packages/
RUN if ls /wheels/packages/*.whl >/dev/null 2>&1; then from="--no-index --find-links /wheels/packages"; \
    else from="--only-binary :all:"; fi \
 && pip --python /opt/nfs-provisioner/bin/python install $from --no-compile --no-deps --require-hashes \
      -r /wheels/packages/requirements.txt
# What the provisioner never loads, 90 MB:
# - of the Kubernetes client all but the asynchronous loaders of configurations (provisioner/kube/library.py), and
#   pydantic, which only the rest of it needs;
# - debug symbols and Cython sources.
RUN cd /opt/nfs-provisioner/lib/python3*/site-packages \
 && find kubernetes -mindepth 1 -maxdepth 1 -type d ! -name aio -exec rm -r {} + \
 && find kubernetes/aio -mindepth 1 -maxdepth 1 -type d ! -name config -exec rm -r {} + \
 && rm -r pydantic pydantic_core \
 && find . -name '*.so' -exec strip --strip-unneeded {} + \
 && find . -name '*.p[xy][dx]' -delete
COPY pyproject.toml README.md LICENSE dist/image/*.wh[l] /source/
COPY provisioner /source/provisioner
# The same code gives the same wheel at any time.
RUN cd /source && if ! ls ./*.whl >/dev/null 2>&1; then \
      SOURCE_DATE_EPOCH=946684800 pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir . .; fi \
 && pip --python /opt/nfs-provisioner/bin/python install --no-index --no-deps --no-compile ./*.whl
# The root of a running container is read-only, so bytecode must be here already: of each module of the provisioner and
# all that these import, the standard library too, in a directory of its own.
RUN unset PYTHONDONTWRITEBYTECODE && export PYTHONPYCACHEPREFIX=/opt/nfs-provisioner/bytecode && cd / \
 && /opt/nfs-provisioner/bin/python -c "import importlib, pkgutil, provisioner; \
      names = [each.name for each in pkgutil.walk_packages(provisioner.__path__, 'provisioner.')]; \
      [importlib.import_module(name) for name in names if not name.endswith('__main__')]" \
 && /opt/nfs-provisioner/bin/nfs-provisioner run --help >/dev/null

FROM python
COPY --from=build /opt/nfs-provisioner /opt/nfs-provisioner
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nfs-provisioner" \
      org.opencontainers.image.description="Dynamic NFS volumes for Kubernetes: a directory and a PersistentVolume for each claim" \
      org.opencontainers.image.source="https://github.com/nfs-provisioner/nfs-provisioner" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/nfs-provisioner/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPYCACHEPREFIX=/opt/nfs-provisioner/bytecode \
    PYTHONUNBUFFERED=1
USER 65534:65534
EXPOSE 8080
ENTRYPOINT ["nfs-provisioner"]
CMD ["run"]
