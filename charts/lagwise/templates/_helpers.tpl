{{- define "lagwise.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "lagwise.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "lagwise.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lagwise.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lagwise.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lagwise.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "lagwise.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* Replicas accept one another by their service account, and it has the rights of lagwise. So it must be one that no
       other pod has. */ -}}
{{- define "lagwise.serviceAccountName" -}}
{{- if eq .Values.serviceAccount.name "default" -}}
{{- fail "serviceAccount.name: default is the account of every pod of the namespace that names none; name an account that only lagwise has" -}}
{{- end -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lagwise.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: with serviceAccount.create false, the name of an account is required that only lagwise has" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "lagwise.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "lagwise.certificateSecret" -}}
{{- if eq .Values.tls.type "existingSecret" -}}
{{- required "tls.existingSecret: the name of a Secret with tls.crt and tls.key is required with tls.type existingSecret" .Values.tls.existingSecret -}}
{{- else -}}
{{- printf "%s-tls" (include "lagwise.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- /* Who may read the metrics: none (everyone) or kubernetes. */ -}}
{{- define "lagwise.metricsAuth" -}}
{{- $server := default dict .Values.config.server -}}
{{- /* http is the former name of metrics. */ -}}
{{- dig "metrics" "auth" (dig "http" "auth" "none" $server) $server -}}
{{- end -}}

{{- /* The port in an address to listen on. */ -}}
{{- define "lagwise.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{- define "lagwise.writes" -}}
{{- if or .Values.enforce.enabled .Values.scaleToZero.enabled -}}true{{- end -}}
{{- end -}}

{{- define "lagwise.ledger" -}}
{{- printf "%s-zero" (include "lagwise.fullname" .) -}}
{{- end -}}

{{- /* The rights to write to HPAs and to their scale targets in all namespaces: those of the modes without a list. */ -}}
{{- define "lagwise.writeRules" -}}
{{- $enforces := and .Values.enforce.enabled (not .Values.enforce.namespaces) -}}
{{- $zeroes := and .Values.scaleToZero.enabled (not .Values.scaleToZero.namespaces) -}}
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch{{ if or $enforces $zeroes }}, patch{{ end }}]
{{- if include "lagwise.writes" . }}
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingadmissionpolicies, mutatingadmissionpolicybindings]
  resourceNames: [lagwise-cap]
  verbs: [get]
{{- end }}
{{- if $zeroes }}
{{ include "lagwise.scaleRules" . }}
{{- end }}
{{- end -}}

{{- /* The rights to the scale of workloads. */ -}}
{{- define "lagwise.scaleRules" -}}
{{- range $i, $target := .Values.scaleToZero.targets }}
{{- if $i }}
{{ end -}}
- apiGroups: {{ toJson $target.apiGroups }}
  resources: {{ toJson $target.resources }}
  verbs: [get, patch]
{{- end }}
{{- end -}}

{{- /* A Role for each namespace that a mode lists. Takes the chart as .chart, the name of the service account as .name,
       and the annotations of the objects as .annotations. */ -}}
{{- define "lagwise.namespacedRoles" -}}
{{- $chart := .chart -}}
{{- $name := .name -}}
{{- $annotations := .annotations -}}
{{- $enforce := ternary $chart.Values.enforce.namespaces list $chart.Values.enforce.enabled -}}
{{- $zero := ternary $chart.Values.scaleToZero.namespaces list $chart.Values.scaleToZero.enabled -}}
{{- range $namespace := concat $enforce $zero | uniq | sortAlpha }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}-writes
  namespace: {{ $namespace }}
  labels:
    {{- include "lagwise.labels" $chart | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
rules:
  - apiGroups: [autoscaling]
    resources: [horizontalpodautoscalers]
    verbs: [patch]
  {{- if has $namespace $zero }}
  {{- include "lagwise.scaleRules" $chart | nindent 2 }}
  {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}-writes
  namespace: {{ $namespace }}
  labels:
    {{- include "lagwise.labels" $chart | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}-writes}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $chart.Release.Namespace }}}
{{- end }}
{{- end -}}

{{- /* The annotations that users who are bound to the cap may have: all but paused. */ -}}
{{- define "lagwise.allowedAnnotations" -}}
consumer-group|topics|topic-regex|partitions|offset-reset|isolation|residual-max|residual-after|stuck-after|stuck-counts|forget-after|lag-per-replica|threads-per-replica|even|by|fallback-replicas|fallback-after|cap|max-replicas|scale-to-zero|cooldown|ceiling|user-max-replicas|zeroed-since|epoch
{{- end -}}
