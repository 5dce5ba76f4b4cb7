"""Was tuning worth it: the tuned model and its baselines answer the test set, and the answers are compared.

    material   the test set as questions, examples for few-shot; read before training, so that bad ones end it early
    measuring  who answers, in which order, from where it was interrupted
      models   the base model and the active version, each in the place of the tuned one for a while
      generate greedy answers of a model, in batches
      endpoint answers of an OpenAI-compatible service
      kept     answers so far, on disk
    measures   one answer against one completion, metric by metric
    judge      which of two answers is the better one, by a model
    compare    means, paired bootstrap, verdicts
    contest    all of it together: what is told of whom
    page       report.html

`material.prepare` before training, `Measuring` and `page` after it are all that the recipe calls.
"""
