# For GPU nodes: the trainer, and SGLang in an environment of its own. NOT BUILT AND NOT RUN by us: there is no container engine
# and no GPU where this is developed. The pair is one of the known-good ones (docs/rollout.md, "Versions"): torch 2.11 with
# SGLang 0.5.17, whose NCCL and IPC handles are equal, so that every transport works.
#
#   docker build -t gcpo .
#   docker run --gpus all --ipc host --ulimit memlock=-1 -v /data:/data gcpo tools/doctor.py
#   docker run --gpus all --ipc host --ulimit memlock=-1 -v /data:/data gcpo \
#       -m gcpo_mcore.base.torchrun --standalone --nproc-per-node 8 tools/train.py rollout=sglang run.folder=/data/runs ...
ARG BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04
FROM ${BASE}

ARG TORCH=2.11.0
ARG SGLANG=0.5.17

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev git build-essential libnuma1 \
    && rm -rf /var/lib/apt/lists/*

# The servers' environment first: it is the largest and changes least.
RUN python3 -m venv /opt/sglang && /opt/sglang/bin/pip install --no-cache-dir "sglang==${SGLANG}"

RUN python3 -m venv /opt/gcpo && /opt/gcpo/bin/pip install --no-cache-dir "torch==${TORCH}"
COPY . /opt/gcpo_mcore
WORKDIR /opt/gcpo_mcore
RUN /opt/gcpo/bin/pip install --no-cache-dir -e ".[hub,wandb]" "torch==${TORCH}"

# What runs need of the environment: docs/launch.md, docs/rollout.md.
ENV PATH=/opt/gcpo/bin:$PATH OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
ENTRYPOINT ["python"]
CMD ["tools/doctor.py"]
