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

{{- /* The rights to write to HPAs and to their scale targets. */ -}}
{{- define "lagwise.writeRules" -}}
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, patch]
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingadmissionpolicies, mutatingadmissionpolicybindings]
  resourceNames: [lagwise-cap]
  verbs: [get]
{{- if .Values.scaleToZero.enabled }}
{{- range .Values.scaleToZero.targets }}
- apiGroups: {{ toJson .apiGroups }}
  resources: {{ toJson .resources }}
  verbs: [get, patch]
{{- end }}
{{- end }}
{{- end -}}

{{- /* The annotations that users who are bound to the cap may have: all but paused. */ -}}
{{- define "lagwise.allowedAnnotations" -}}
consumer-group|topics|topic-regex|partitions|offset-reset|isolation|residual-max|residual-after|stuck-after|stuck-counts|forget-after|lag-per-replica|threads-per-replica|even|by|fallback-replicas|fallback-after|cap|max-replicas|scale-to-zero|cooldown|ceiling|user-max-replicas|zeroed-since|epoch
{{- end -}}
