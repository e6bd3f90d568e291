# The provisioner's image: Debian's Python, the packages that requirements.txt pins, and the wheel that the tests ran.
# docker/build.sh puts the wheels into dist/image first.

FROM debian:trixie-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-pip python3-venv \
 && python3 -m venv --without-pip /opt/nfs-provisioner
COPY requirements.txt /wheels/
COPY dist/image/packages /wheels/packages
RUN pip --python /opt/nfs-provisioner/bin/python install --no-index --find-links /wheels/packages --no-compile \
      --no-deps --require-hashes -r /wheels/requirements.txt
# Of the Kubernetes client we use configuration and session (provisioner/kube/library.py): neither its synchronous half
# nor the classes of every resource, which are 70 MB of source and are looked up by name when somebody asks for one.
RUN cd /opt/nfs-provisioner/lib/python3*/site-packages/kubernetes \
 && rm -r client aio/client/api \
 && find aio/client/models -type f ! -name __init__.py -delete
COPY dist/image/*.whl /wheels/
RUN pip --python /opt/nfs-provisioner/bin/python install --no-index --no-deps --no-compile /wheels/*.whl
# Bytecode of what is imported and of nothing else, for the root is read-only.
RUN cd / && /opt/nfs-provisioner/bin/python -c "import provisioner.app, provisioner.inspection, provisioner.survey" \
 && for command in run check volumes; do /opt/nfs-provisioner/bin/nfs-provisioner $command --help >/dev/null; done

FROM debian:trixie-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*
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
    PYTHONUNBUFFERED=1
USER 65534:65534
EXPOSE 8080
ENTRYPOINT ["nfs-provisioner"]
CMD ["run"]
