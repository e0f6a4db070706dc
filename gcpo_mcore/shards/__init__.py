"""A folder of shards: tensors in pieces, each in the file of the rank that had it, read back in any other pieces.

The format is torch.distributed.checkpoint's, with the two small files that megatron-core's dist_checkpointing adds:
both read what is written here. Nothing in this room knows what the tensors are.
"""
