"""The server behind `finetune-trainer serve`.

    app ─▶ requests, answers, api_errors      HTTP: requests and responses; without torch
     │└▶ api_key, metrics                     authentication; Prometheus metrics
     └─▶ served ─▶ prompts                    the model as HTTP sees it: its limits, how prompts become tokens
    relay ─▶ asks                             requests to the engine, and how results come back
    engine ─▶ batch ─▶ kv_cache               one thread that owns the model; many requests, one forward pass
     │     └▶ seq2seq_batch                   the same for encoder-decoders
     └─▶ sampling, text                       one request: its next token, its text and stop sequences
    load ─▶ artifact                          loads a model from a folder

Only `load`, `batch`, `seq2seq_batch`, `kv_cache` and `sampling` import torch, so that the server can listen at once.
"""
