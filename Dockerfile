# On a CPU:     docker build --target cpu -t mmdet_attn .
#               docker run --rm mmdet_attn
# On NVIDIA's:  docker build --target cuda -t mmdet_attn:cuda .
#               docker run --rm --gpus all --shm-size 8g mmdet_attn:cuda
# The demo is the default; add `make test` for the tests.

FROM python:3.11-slim-bookworm AS cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1
WORKDIR /mmdet_attn
COPY . .
RUN python3 tools/setup_env.py && rm -r /root/.cache/mmdet_attn
CMD ["make", "demo"]

FROM nvidia/cuda:13.0.1-devel-ubuntu24.04 AS cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# No GPU is visible during the build.
ENV FORCE_CUDA=1 \
    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu130 \
    PIP_NO_CACHE_DIR=1 \
    TORCH_CUDA_ARCH_LIST="7.5;8.0;8.6;8.9;9.0;10.0;12.0"
WORKDIR /mmdet_attn
COPY . .
RUN python3 tools/setup_env.py && rm -r /root/.cache/mmdet_attn
CMD ["make", "demo"]
