{{/* The operator's settings as variables: what the chart itself decides, then values.settings in SNAKE_CASE. */}}
{{- define "finetune.environment" -}}
{{- include "finetune.requireLeaseTimes" . -}}
{{- include "finetune.requireOwnVariables" . -}}
- name: FINETUNE_NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1 # as the API server completes it, so that server-side apply finds no other value
      fieldPath: metadata.namespace
- name: FINETUNE_POD_NAME
  valueFrom:
    fieldRef:
      apiVersion: v1 # as the API server completes it, so that server-side apply finds no other value
      fieldPath: metadata.name
- name: FINETUNE_SERVICE_NAME
  value: {{ include "finetune.fullname" . | quote }}
- name: FINETUNE_LEASE_NAME
  value: {{ include "finetune.fullname" . | quote }}
- name: FINETUNE_TLS_SECRET
  value: {{ include "finetune.tlsSecret" . | quote }}
- name: FINETUNE_CLUSTER_DOMAIN
  value: {{ .Values.clusterDomain | quote }}
- name: FINETUNE_LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
- name: FINETUNE_CHECK_IMAGE
  value: {{ include "finetune.checkImage" . | quote }}
- name: FINETUNE_PROVIDER_CATALOGUE
  value: /etc/finetune/catalogue/providers.json
{{- if .Values.watchNamespaces }}
- name: FINETUNE_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
{{- end }}
{{- if .Values.reports.tls.existingSecret }}
- name: FINETUNE_TLS_DIR
  value: /etc/finetune/tls
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: FINETUNE_{{ $name | snakecase | upper }}
  value: {{ $value | toJson | quote }} {{- /* toString writes a million of a file as 1e+06 */}}
{{- end }}
{{- end -}}

{{/* The operator refuses lease times that do not rise: said here, where the reader is, and not in the log of a pod that ends. */}}
{{- define "finetune.requireLeaseTimes" -}}
{{- $settings := default dict .Values.settings -}}
{{- $retry := float64 (default 2 $settings.leaseRetrySeconds) -}}
{{- $renew := float64 (default 10 $settings.leaseRenewSeconds) -}}
{{- $duration := float64 (default 15 $settings.leaseDurationSeconds) -}}
{{- if not (and (lt (mulf 1.2 $retry) $renew) (lt $renew $duration)) -}}
{{- fail (printf "settings: lease times must rise: 1.2 x leaseRetrySeconds (%v) < leaseRenewSeconds (%v) < leaseDurationSeconds (%v)" $retry $renew $duration) -}}
{{- end -}}
{{- end -}}

{{/* The operator's own variables come from values: one that stands twice, or that it does not know, is an end at its start. */}}
{{- define "finetune.requireOwnVariables" -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "FINETUNE_" .name -}}
{{- fail (printf "extraEnv: %s: the operator's settings are values of the chart: write settings.%s, or the value of that name" .name (.name | trimPrefix "FINETUNE_" | lower | camelcase | untitle)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
