"""Evaluation: the tuned model and its baselines answer the test set, and their answers are compared.

    material                                  the test set as questions; read before training, to fail early
    measuring, at_provider ─▶ asking          who is asked, in which order; resumes after interruptions
      models, generate, losses                the base model and the active version, in turn
      operator_way ─▶ endpoint ─▶ response    answers of a service, or of a provider through the operator
      kept, stored                            answers so far, on disk; sequences that take little memory
      care                                    smaller batches after an attempt was OOM-killed
    measures                                  one answer against one completion, metric by metric
    judge                                     which of two answers is better, according to a model
    compare                                   means, paired bootstrap, verdicts
    contest                                   puts everything together into the result
    page                                      report.html

The recipe calls only `material.prepare` before training, and `Measuring` and `page` after it.
"""
