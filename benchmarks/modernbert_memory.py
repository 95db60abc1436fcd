"""Peak memory of ModernBERT-base's shape for one row: `python benchmarks/modernbert_memory.py 8192`."""

import argparse

import mlx.core as mx

from mlx_rerank.device.names import parse_device
from mlx_rerank.device.operations import on
from mlx_rerank.models.encoders.modernbert import FAMILY

BASE = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
    "pad_token_id": 50283,
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "classifier_pooling": "mean",
}


def main() -> None:
    """Print megabytes: of the weights, and the most that MLX held beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", type=int, nargs="*", default=[8192])
    with on(parse_device("cpu")):
        model = FAMILY.build(FAMILY.shape(BASE))
        mx.eval(model.parameters())
        weights = mx.get_active_memory()
        for tokens in parser.parse_args().tokens:
            mx.reset_peak_memory()
            mx.eval(model(mx.zeros((1, tokens), mx.int32)))
            print(f"{tokens} tokens: {(mx.get_peak_memory() - weights) / 1e6:.0f} MB beside {weights / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
