"""The job that is to be done: read from manifests, with a word for each wrong field, or given by the environment.

    given                                     the job of a pod, and the keys of its data
    given_files ─▶ manifest                   files, folders and standard input; the objects of ours in them
      yaml_documents ─▶ kubernetes_yaml       documents with their lines, as kubectl reads them
      wrong_fields                            one wrong field in words
        fields                                which fields there are
        meant ─▶ other_names                  which one was meant, by its likeness or by what other tools call it
        wrong_values                          what to write in place of a value
      rules_between, open_parts, left_empty   rules between fields, parts that are Kubernetes' own, empty fields
    code_files                                spec.code on its way to a provider

What the data and the base model have to say of a job is told by their own packages.
"""
