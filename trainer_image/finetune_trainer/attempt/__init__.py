"""One attempt at a job: its processes, what it tells and records, what may stop it, and how it ends.

    launch                                    torchrun, where several processes train
    fence, interruption                       what may stop an attempt: its successor, a signal
    report, pod_log                           what it tells the operator, and writes into the pod's log
    metrics, trackers                         the record of its steps, on disk and passed on:
      mlflow_run, weights_and_biases          a run in either of them
    upload                                    files for a provider, passed on by the operator
    outcome                                   how it ends: one line, the last report, the exit code

`report` and `outcome` are what every command of a pod ends with.
"""
