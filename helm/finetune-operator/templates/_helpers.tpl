{{- define "finetune.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Names of objects: DNS labels of at most 50 characters that begin with a letter, so that every suffix still fits. */}}
{{- define "finetune.fullname" -}}
{{- $name := include "finetune.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full = default $full .Values.fullnameOverride | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $full -}}
{{- $full = printf "r-%s" $full -}}
{{- end -}}
{{- $full | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "finetune.selectorLabels" -}}
app.kubernetes.io/name: {{ include "finetune.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "finetune.labels" -}}
{{- include "finetune.labelsAnd" (list . "" dict) -}}
{{- end -}}

{{/* The chart's labels with more of values, given the root, their place and themselves. No label stands twice; those by which
selectors and helm find objects stay the chart's. */}}
{{- define "finetune.labelsAnd" -}}
{{- $root := index . 0 -}}
{{- $own := fromYaml (include "finetune.selectorLabels" $root) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $labels := dict "app.kubernetes.io/part-of" "finetune" "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $_ := set $labels "helm.sh/chart" $chart -}}
{{- range $place, $more := dict "commonLabels" $root.Values.commonLabels (index . 1) (index . 2) -}}
{{- range $name, $value := $more -}}
{{- if or (hasKey $own $name) (eq $name "app.kubernetes.io/component") -}}
{{- fail (printf "%s: %s is a label of the chart's own, by which its objects are found: leave it out" $place $name) -}}
{{- end -}}
{{- $_ := set $labels $name $value -}}
{{- end -}}
{{- end -}}
{{- toYaml (merge $own $labels) -}}
{{- end -}}

{{- define "finetune.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "finetune.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the account, or set serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "finetune.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "finetune.checkImage" -}}
{{- with .Values.checkImage -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "finetune.tlsSecret" -}}
{{- printf "%s-tls" (include "finetune.fullname" .) -}}
{{- end -}}

{{- /* Where an alert leads to, given the root and the entry's place in this repository: a link if people can follow it. */}}
{{- define "finetune.runbook" -}}
{{- $place := index . 1 }}
{{- with (index . 0).Values.metrics.prometheusRule.runbookURL -}}
runbook_url: {{ printf "%s#%s" . (splitList "#" $place | last) | quote }}
{{- else -}}
runbook: {{ $place | quote }}
{{- end }}
{{- end }}

{{/* Labels of values for each alert. Its severity is the alert's own. */}}
{{- define "finetune.alertLabels" -}}
{{- with .Values.metrics.prometheusRule.alertLabels -}}
{{- if hasKey . "severity" -}}
{{- fail "metrics.prometheusRule.alertLabels: severity is each alert's own: leave it out" -}}
{{- end -}}
{{- toYaml . | nindent 12 -}}
{{- end -}}
{{- end -}}

{{/* Refuses names of SKUs whose capital letters are wrong: beside the chart's own name they would be a second price. */}}
{{- define "finetune.skus" -}}
{{- range $sku, $_ := index . 1 }}
{{- $known := list "Standard" "GlobalStandard" "DeveloperTier" "ProvisionedManaged" "NoCommitment" "OneMonth" "SixMonths" }}
{{- if hasPrefix "ml." (lower $sku) }}{{ $known = list (lower $sku) }}{{ end }}
{{- range $known }}
{{- if and (eq (lower $sku) (lower .)) (ne $sku .) }}
{{- printf "%s.%s: write %s" (index $ 0) $sku . | fail }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
