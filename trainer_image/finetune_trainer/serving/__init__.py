"""The rooms behind `finetune-trainer serve`.

    app ─▶ requests, answers, api_errors      HTTP: what clients send and get; knows no torch
     │└▶ api_key, metrics                     who may ask; what Prometheus reads
     └─▶ served ─▶ prompts                    the model as HTTP sees it: its limits, how prompts become tokens
    relay ─▶ asks                             what HTTP asks of the engine, and how the pieces come back
    engine ─▶ batch ─▶ kv_cache               one thread that owns the model; many requests, one forward pass
     │     └▶ seq2seq_batch                   the same for encoder-decoders
     └─▶ sampling, text                       one request: its next token, its text and stop sequences
    load ─▶ artifact                          a folder becomes a model in memory

Only `load`, `batch`, `seq2seq_batch`, `kv_cache` and `sampling` import torch, so that the server listens at once.
"""
