# Decathlete in a container: docs/how-to/docker.md
#
#   docker build -t decathlete:gpu .
#   docker build -t decathlete:cpu --build-arg DEVICE=cpu --build-arg TORCH_INDEX=... .
#
# torch's wheels contain the CUDA libraries, so both images are based on a plain Python image. The GPU's driver comes from
# the host, through the NVIDIA container toolkit.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
# gpu: torch from the default package index, with CUDA. cpu: from TORCH_INDEX, much smaller.
ARG DEVICE=gpu
# torch's index of CPU builds, see its installation page; needed for cpu.
ARG TORCH_INDEX=""
# Of pyproject.toml: demo for `decathlete demo`.
ARG EXTRAS=tensorboard
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

RUN python -m venv --without-pip /opt/decathlete

# torch is the largest part by far: a layer of its own, kept while only the code changes.
COPY constraints.txt ./
RUN case "$DEVICE" in \
        gpu) pip --python /opt/decathlete/bin/python install -c constraints.txt torch ;; \
        cpu) pip --python /opt/decathlete/bin/python install -c constraints.txt --no-deps \
            --index-url "${TORCH_INDEX:?set the index of the CPU builds of torch: --build-arg TORCH_INDEX=URL}" torch ;; \
        *) echo "DEVICE is '$DEVICE': choose cpu or gpu" >&2; exit 1 ;; \
    esac

COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip --python /opt/decathlete/bin/python install -c constraints.txt ".[$EXTRAS]"


FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Decathlete" \
    org.opencontainers.image.description="nnU-Net for PyTorch: from a folder of medical images to a trained, evaluated segmentation model. Research use only." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

COPY --from=build /opt/decathlete /opt/decathlete

# The command's default folders are data, prepared and results below where it runs: here below /. What is written is
# writable for whichever user the container runs as; HOME and USER serve one without an entry in /etc/passwd.
ENV PATH=/opt/decathlete/bin:$PATH \
    HOME=/tmp \
    USER=decathlete \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN mkdir /data && mkdir -m 1777 /prepared /results
VOLUME ["/data", "/prepared", "/results"]
WORKDIR /
USER 1000:1000

ENTRYPOINT ["decathlete"]
CMD ["--help"]
