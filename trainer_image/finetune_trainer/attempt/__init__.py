"""One attempt at a job: its processes, its reports and records, what may stop it, and how it ends.

    launch                                    torchrun, if several processes train
    fence, interruption                       what may stop an attempt: a newer attempt, a signal
    report, pod_log                           reports to the operator, and lines in the pod's log
    metrics, trackers                         the record of its steps, on disk and in trackers:
      mlflow_run, weights_and_biases          the runs in these two
    upload                                    files for a provider, uploaded through the operator
    outcome                                   its end: one line of output, the last report, the exit code

Every command of a pod ends with `report` and `outcome`.
"""
