"""Training: rows become optimizer steps and steps a tuned model, by the built-in recipe or by the user's own code.

    tokenised ─▶ token_store, pair_store      rows as token ids and labels, on disk
    moment                                    the time that chat templates write, the same for all attempts
    attempt, surroundings ─▶ origin           whose attempt it is, who may stop it, what it goes on from
    course ─▶ batches, intervals, objective   which rows in which step, what happens when, what is minimised
    reference                                 what the model said of pairs before it was trained
    tuning ─▶ loop, trial                     a job's spec becomes a model, a plan and a trainer
    step_trainer ─▶ steps ─▶ passes           transformers' Trainer: a batch of its loop is an optimizer step
      gradients ─▶ side_by_side, shortage     its gradients, pass by pass; what is done where memory is short
      schedule, progress                      its learning rate; how far it is
      checkpoint ─▶ checkpoint_names          what a killed run goes on from
    diverged, rounded                         whether it has come to anything, and what is left of it in 16 bits
    own_code                                  spec.code in place of all this, as a child process:
      code_start, code_guard, code_reports    how it begins, ends with the trainer, and is heard
      code_end, code_before                   how it ended, and what was run before it
      own_model, unchanged, left_tokenizer    the model that it left

`train.py` goes through it from top to bottom, and `recipe.py` offers it to users' code.
"""
