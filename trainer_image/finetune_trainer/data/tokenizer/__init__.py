"""Conversations → text → token ids, as the model's own files define them, without transformers.

    chat_tokenizer ─▶ tokenizer_config        the tokenizer, and validation of its files
    chat_template, template_file              its chat template
    frames                                    what a template writes around each turn
    shared_parts                              tokenizes common parts of texts once

`check` and training use the same code, so that both get the same ids.
"""
