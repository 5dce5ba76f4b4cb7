"""The job: read from manifests, with a message for each invalid field, or given by the environment.

    given                                     the job of a pod, and the credentials for its data
    given_files ─▶ manifest                   files, folders and standard input; our objects in them
      yaml_documents ─▶ kubernetes_yaml       documents with their lines, parsed as kubectl does
      wrong_fields                            describes one invalid field
        fields                                which fields exist
        meant ─▶ other_names                  the field that was probably meant: a similar one, or another tool's name
        wrong_values                          what to write instead of a value
      rules_between, open_parts, left_empty   rules between fields, parts defined by Kubernetes, empty fields
    code_files                                spec.code on its way to a provider

Problems of the data and the base model with a job are found in their own packages.
"""
