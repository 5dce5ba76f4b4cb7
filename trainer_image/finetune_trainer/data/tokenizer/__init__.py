"""Conversations → text → token ids, as the model's own files say, without transformers.

    chat_tokenizer ─▶ tokenizer_config        the tokenizer, and what its files have to be like
    chat_template, template_file              its chat template
    frames                                    what a template writes around each turn
    shared_parts                              texts that begin alike, tokenised once

`check` counts with it what training learns from: both make the same ids.
"""
