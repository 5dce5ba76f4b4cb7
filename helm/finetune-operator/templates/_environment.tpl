{{/* The operator's settings as variables: what the chart itself decides, then values.settings in SNAKE_CASE. */}}
{{- define "finetune.environment" -}}
- name: FINETUNE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: FINETUNE_POD_NAME
  valueFrom:
    fieldRef:
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
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}
