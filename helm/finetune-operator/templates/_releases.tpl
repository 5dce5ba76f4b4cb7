{{/* Two operators would both work on the same objects: what other releases look after is read from their bindings, where the
cluster can be asked (helm install and upgrade; helm template sees none). */}}
{{- define "finetune.requireOwnNamespaces" -}}
{{- $all := "all namespaces" -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "" "").items -}}
{{- $place := ternary $all (ternary "" "some or all namespaces" (not (empty $.Values.watchNamespaces))) (hasSuffix "-namespaced" .roleRef.name) -}}
{{- include "finetune.refuseOther" (list $ . $place) -}}
{{- end -}}
{{- range $namespace := .Values.watchNamespaces -}}
{{- range (lookup "rbac.authorization.k8s.io/v1" "RoleBinding" $namespace "").items -}}
{{- $place := ternary (printf "namespace %s" $namespace) "" (eq .roleRef.kind "ClusterRole") -}}
{{- include "finetune.refuseOther" (list $ . $place) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Given the root, a binding, and what its release looks after by it. */}}
{{- define "finetune.refuseOther" -}}
{{- $root := index . 0 -}}
{{- $binding := index . 1 -}}
{{- $place := index . 2 -}}
{{- $labels := default dict $binding.metadata.labels -}}
{{- $is_ours := hasPrefix (printf "%s-" $root.Chart.Name) (toString (get $labels "helm.sh/chart")) -}}
{{- $release := toString (get $labels "app.kubernetes.io/instance") -}}
{{- range (ternary $binding.subjects list (and $is_ours (not (empty $place)))) -}}
{{- if ne (printf "%s/%s" .namespace $release) (printf "%s/%s" $root.Release.Namespace $root.Release.Name) -}}
{{- fail (printf "release %s in namespace %s looks after %s: two operators would work on the same objects. Uninstall it, or give each release watchNamespaces of its own" $release .namespace $place) -}}
{{- end -}}
{{- end -}}
{{- end -}}
