"""Was tuning worth it: the tuned model and its baselines answer the test set, and the answers are compared.

    material                                  the test set as questions; read before training, which bad ones end
    measuring, at_provider ─▶ asking          who answers, in which order, from where it was interrupted
      models, generate, losses                the base model and the active version, each in the tuned one's place
      operator_way ─▶ endpoint ─▶ response    answers of a service, and of a provider through the operator
      kept, stored                            answers so far, on disk; sequences that take little memory
      care                                    where the kernel has ended an attempt for want of memory
    measures                                  one answer against one completion, metric by metric
    judge                                     which of two answers is the better one, by a model
    compare                                   means, paired bootstrap, verdicts
    contest                                   all of it together: what is told of whom
    page                                      report.html

`material.prepare` before training, `Measuring` and `page` after it are all that the recipe calls.
"""
