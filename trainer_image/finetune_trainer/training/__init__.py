"""Training: rows become optimizer steps and steps a tuned model, by the built-in recipe or by the user's own code.

    tokenised ─▶ token_store, pair_store      rows as token ids and labels, on disk
    moment                                    the time that chat templates write, fixed for all attempts
    attempt, surroundings ─▶ origin           the attempt's job, stop requests, checkpoints to resume from
    course ─▶ batches, intervals, objective   rows of each step, what happens when, the loss
    reference                                 likelihoods of pairs under the untrained model
    tuning ─▶ loop, trial                     a job's spec becomes a model, a plan and a trainer
    step_trainer ─▶ steps ─▶ passes           transformers' Trainer: a batch of its loop is an optimizer step
      gradients ─▶ side_by_side, shortage     its gradients, pass by pass; handling of out-of-memory
      schedule, progress                      its learning rate; progress
      checkpoint ─▶ checkpoint_names          what a killed run resumes from
    diverged, rounded                         whether training worked, and what 16 bits keep of it
    own_code                                  spec.code instead of all this, as a child process:
      code_start, code_guard, code_reports    its start, its end with the trainer, its reports
      code_end, code_before                   how it ended, and which code ran before
      own_model, unchanged, left_tokenizer    the model that it wrote

`train.py` uses it from top to bottom, and `recipe.py` offers it to users' code.
"""
