"""The tests, which leave the GPUs alone: whatever they start computes on the CPU, so that they never fight for one."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""
