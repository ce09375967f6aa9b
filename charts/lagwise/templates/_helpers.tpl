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

{{- /* A name with a suffix, of at most 63 characters as Kubernetes requires of labels, Jobs and host names of pods. What is
       cut from a longer one counts in a hash, so that two names stay two. Takes the name and the suffix as a list. */ -}}
{{- define "lagwise.suffixedName" -}}
{{- $name := printf "%s-%s" (first .) (last .) -}}
{{- if gt (len $name) 63 -}}
{{- $kept := sub 53 (len (last .)) | int -}}
{{- $name = printf "%s-%s-%s" (first . | trunc $kept | trimSuffix "-") (first . | sha256sum | trunc 8) (last .) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- /* The given configuration as JSON. A section without a value is as if left out, as in the file of the daemon. */ -}}
{{- define "lagwise.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- range $key, $section := $config -}}
{{- if kindIs "invalid" $section -}}{{ $_ := unset $config $key }}{{- end -}}
{{- if kindIs "map" $section -}}
{{- range $inner, $value := $section -}}
{{- if kindIs "invalid" $value -}}{{ $_ := unset $section $inner }}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{- define "lagwise.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lagwise.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lagwise.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." -}}
{{- end -}}

{{- define "lagwise.labels" -}}
helm.sh/chart: {{ include "lagwise.chart" . }}
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

{{- /* The image. A digest wins over a tag, so that of the release is used only for the image of the release: not if the
       values name a repository, a tag or a digest of their own. */ -}}
{{- define "lagwise.image" -}}
{{- $image := .Values.image -}}
{{- $release := .Files.Get "files/release.yaml" | fromYaml -}}
{{- $tag := $image.tag -}}
{{- $digest := $image.digest -}}
{{- if not (or $tag $digest) -}}
{{- if eq $image.repository $release.repository -}}
{{- $digest = get $release (default "plain" (and $image.kerberos "gssapi")) -}}
{{- else -}}
{{- $tag = .Chart.AppVersion -}}
{{- end -}}
{{- end -}}
{{- if and $image.kerberos (not $digest) -}}
{{- $tag = printf "%s-gssapi" (trimSuffix "-gssapi" $tag) -}}
{{- end -}}
{{ $image.repository }}{{ with $tag }}:{{ . }}{{ end }}{{ with $digest }}@{{ . }}{{ end }}
{{- end -}}

{{- /* Annotations of the service account. */ -}}
{{- define "lagwise.serviceAccountAnnotations" -}}
{{- $annotations := dict -}}
{{- with .Values.podIdentity.awsRoleArn }}{{ $_ := set $annotations "eks.amazonaws.com/role-arn" . }}{{ end -}}
{{- with .Values.podIdentity.azureClientId }}{{ $_ := set $annotations "azure.workload.identity/client-id" . }}{{ end -}}
{{- with .Values.podIdentity.gcpServiceAccount }}{{ $_ := set $annotations "iam.gke.io/gcp-service-account" . }}{{ end -}}
{{- with merge (deepCopy .Values.serviceAccount.annotations) $annotations }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- /* Labels of the pods besides those of the selector. */ -}}
{{- define "lagwise.podLabels" -}}
{{- $labels := dict -}}
{{- if .Values.podIdentity.azureClientId }}{{ $_ := set $labels "azure.workload.identity/use" "true" }}{{ end -}}
{{- with merge (deepCopy .Values.podLabels) $labels }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- /* Labels of the pods that end: of helm test, and of the job after the uninstallation. Takes the chart as .chart, and
       further labels as .labels. */ -}}
{{- define "lagwise.hookPodLabels" -}}
{{- with merge (.chart.Values.hookPods.labels | default dict | deepCopy) .labels }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "lagwise.hookPodAnnotations" -}}
{{- with merge (.Values.hookPods.annotations | default dict | deepCopy) .Values.podAnnotations }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- /* The network of a pod with the daemon's connections, and how it resolves names. */ -}}
{{- define "lagwise.network" -}}
{{- if .Values.hostNetwork }}
hostNetwork: true
{{- end }}
{{- with .Values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" .Values.hostNetwork) }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "lagwise.certificateSecret" -}}
{{- if eq .Values.tls.type "existingSecret" -}}
{{- required "tls.existingSecret: the name of a Secret with tls.crt and tls.key is required with tls.type existingSecret" .Values.tls.existingSecret -}}
{{- else -}}
{{- printf "%s-tls" (include "lagwise.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- /* The environment of a container of lagwise. */ -}}
{{- define "lagwise.environment" -}}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  # Address at which the other replicas reach this one while it leads.
  - name: POD_IP
    valueFrom: {fieldRef: {fieldPath: status.podIP}}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The files of a container of lagwise. */ -}}
{{- define "lagwise.volumeMounts" -}}
volumeMounts:
  - {name: config, mountPath: /etc/lagwise/lagwise.yaml, subPath: lagwise.yaml, readOnly: true}
  {{- if and (ne .Values.tls.type "selfSigned") (not (include "lagwise.observes" .)) }}
  - {name: certificate, mountPath: /etc/lagwise/tls, readOnly: true}
  {{- end }}
  {{- if .Values.existingSecret.name }}
  - {name: kafka, mountPath: {{ .Values.existingSecret.mountPath }}, readOnly: true}
  {{- end }}
  {{- if .Values.upstream.serviceAccount }}
  - {name: upstream, mountPath: /etc/lagwise/upstream, readOnly: true}
  {{- end }}
  {{- with .Values.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* The volumes of a pod of lagwise. */ -}}
{{- define "lagwise.volumes" -}}
volumes:
  - name: config
    configMap: {name: {{ include "lagwise.fullname" . }}}
  {{- if and (ne .Values.tls.type "selfSigned") (not (include "lagwise.observes" .)) }}
  - name: certificate
    secret: {secretName: {{ include "lagwise.certificateSecret" . }}}
  {{- end }}
  {{- with .Values.existingSecret.name }}
  - name: kafka
    # Readable for the user and group of the pod only.
    secret: {secretName: {{ . }}, defaultMode: 0440}
  {{- end }}
  {{- if .Values.upstream.serviceAccount }}
  - name: upstream
    secret: {secretName: {{ include "lagwise.fullname" . }}-upstream, defaultMode: 0440}
  {{- end }}
  {{- with .Values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* Who may read the metrics: none (everyone) or kubernetes. */ -}}
{{- define "lagwise.metricsAuth" -}}
{{- $server := (include "lagwise.config" . | fromJson).server | default dict -}}
{{- /* http is the former name of metrics. */ -}}
{{- dig "metrics" "auth" (dig "http" "auth" "none" $server) $server -}}
{{- end -}}

{{- /* The addresses of the listeners, by the key of their section, as JSON. The external scaler has one only if it is set. */ -}}
{{- define "lagwise.addresses" -}}
{{- $server := (include "lagwise.config" . | fromJson).server | default dict -}}
{{- /* http is the former name of metrics. */ -}}
{{- $metrics := dig "http" "listen" "" $server | default "0.0.0.0:8080" -}}
{{- $defaults := dict "external_metrics" "0.0.0.0:6443" "metrics" $metrics "probes" "0.0.0.0:8081" "admin" "127.0.0.1:8082" "external_scaler" "" -}}
{{- $addresses := dict -}}
{{- range $key, $default := $defaults -}}
{{- with dig $key "listen" "" $server | default $default -}}
{{- $_ := set $addresses $key . -}}
{{- end -}}
{{- end -}}
{{- toJson $addresses -}}
{{- end -}}

{{- /* The port in an address to listen on. */ -}}
{{- define "lagwise.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{- /* Whether this object of the cluster, as lookup returns it, belongs to another release: then its name, otherwise
       nothing. Takes the chart as .chart, and the object as .object. */ -}}
{{- define "lagwise.otherRelease" -}}
{{- if .object -}}
{{- $annotations := default dict .object.metadata.annotations -}}
{{- $name := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- if and $name (or (ne $name .chart.Release.Name) (ne $namespace .chart.Release.Namespace)) -}}
release {{ $name }} in namespace {{ $namespace }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Whether it only observes: then it lists and watches, and writes nothing. */ -}}
{{- define "lagwise.observes" -}}
{{- if eq .Values.mode "observe" -}}true{{- end -}}
{{- end -}}

{{- /* Whether the API server asks it for the metrics of HPAs. */ -}}
{{- define "lagwise.servesHpas" -}}
{{- if and .Values.apiService.create (not (include "lagwise.observes" .)) }}true{{ end -}}
{{- end -}}

{{- /* The rights to KEDA's objects, if it observes. */ -}}
{{- define "lagwise.kedaRules" -}}
{{- if include "lagwise.observes" . }}
- apiGroups: [keda.sh]
  resources: [scaledobjects, scaledjobs, triggerauthentications]
  verbs: [list, watch]
{{- end }}
{{- end -}}

{{- define "lagwise.writes" -}}
{{- if or .Values.enforce.enabled .Values.scaleToZero.enabled -}}true{{- end -}}
{{- end -}}

{{- /* The arguments of lagwise that undo its writes after an uninstallation, as JSON. */ -}}
{{- define "lagwise.releaseArguments" -}}
{{- $arguments := list "release" "--all" -}}
{{- range (include "lagwise.namespaces" . | fromJson).watched -}}
{{- $arguments = concat $arguments (list "--namespace" .) -}}
{{- end -}}
{{- if .Values.scaleToZero.enabled -}}
{{- $arguments = concat $arguments (list "--ledger" (printf "%s/%s" .Release.Namespace (include "lagwise.ledger" .))) -}}
{{- end -}}
{{- toJson $arguments -}}
{{- end -}}

{{- /* The modes that this upgrade switches off, which had a right to write, and the arguments of lagwise that undo their
       writes, as JSON. The ConfigMap still has the former configuration. */ -}}
{{- define "lagwise.switchedOff" -}}
{{- $modes := list -}}
{{- $arguments := list "release" "--all" -}}
{{- if .Release.IsUpgrade -}}
{{- with lookup "v1" "ConfigMap" .Release.Namespace (include "lagwise.fullname" .) -}}
{{- $former := get .data "lagwise.yaml" | fromYaml -}}
{{- range dig "kubernetes" "namespaces" list $former -}}
{{- $arguments = concat $arguments (list "--namespace" .) -}}
{{- end -}}
{{- if and (dig "cap" "enforce" "enabled" false $former) (not $.Values.enforce.enabled) -}}
{{- $modes = append $modes "enforce" -}}
{{- end -}}
{{- if and (dig "scale_to_zero" "enabled" false $former) (not $.Values.scaleToZero.enabled) -}}
{{- $modes = append $modes "scaleToZero" -}}
{{- $arguments = concat $arguments (list "--ledger" (printf "%s/%s" $.Release.Namespace (include "lagwise.ledger" $))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "modes" $modes "arguments" $arguments | toJson -}}
{{- end -}}

{{- define "lagwise.ledger" -}}
{{- printf "%s-zero" (include "lagwise.fullname" .) -}}
{{- end -}}

{{- /* The namespaces of the rights, as JSON: those whose HPAs are watched, and those in which a mode may write to them.
       An empty list of watched namespaces means all; the others are empty if the mode is off, or if its rights are
       granted in all namespaces. */ -}}
{{- define "lagwise.namespaces" -}}
{{- $watched := default list ((include "lagwise.config" . | fromJson).kubernetes | default dict).namespaces -}}
{{- $all := dict "watched" $watched -}}
{{- range $mode := list "enforce" "scaleToZero" -}}
{{- $settings := index $.Values $mode -}}
{{- range $settings.namespaces -}}
{{- if and $watched (not (has . $watched)) -}}
{{- fail (printf "%s.namespaces: %s is not among config.kubernetes.namespaces, so its HPAs are not watched; add it there too" $mode .) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $all $mode (ternary ($settings.namespaces | default $watched) list $settings.enabled) -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{- /* The verbs on HPAs, as a list in YAML: those for finding them, if .reads, and those for writing to them, if .writes.
       Only the daemon watches, not a job (.job). */ -}}
{{- define "lagwise.hpaVerbs" -}}
{{- $verbs := list -}}
{{- if .reads -}}{{- $verbs = ternary (list "list") (list "list" "watch") .job -}}{{- end -}}
{{- if .writes -}}{{- $verbs = concat $verbs (list "get" "patch") -}}{{- end -}}
[{{ join ", " $verbs }}]
{{- end -}}

{{- /* The rights to HPAs and to their scale targets in all namespaces. Takes the chart as .chart, and whether they are for
       a job as .job. */ -}}
{{- define "lagwise.writeRules" -}}
{{- $chart := .chart -}}
{{- $namespaces := include "lagwise.namespaces" $chart | fromJson -}}
{{- $enforces := and $chart.Values.enforce.enabled (not $namespaces.enforce) -}}
{{- $zeroes := and $chart.Values.scaleToZero.enabled (not $namespaces.scaleToZero) -}}
{{- if not $namespaces.watched }}
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: {{ include "lagwise.hpaVerbs" (dict "reads" true "writes" (or $enforces $zeroes) "job" .job) }}
{{- end }}
{{- if include "lagwise.writes" $chart }}
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingadmissionpolicies, mutatingadmissionpolicybindings]
  resourceNames: [lagwise-cap]
  verbs: [get]
{{- end }}
{{- if $zeroes }}
{{ include "lagwise.scaleRules" $chart }}
{{- end }}
{{- end -}}

{{- /* The rights of the daemon in the whole cluster, if there are any. */ -}}
{{- define "lagwise.clusterRules" -}}
{{- include "lagwise.writeRules" (dict "chart" . "job" false) | trim }}
{{- if and (eq .Values.tls.type "selfSigned") .Values.apiService.create (not (include "lagwise.observes" .)) }}
# For writing the CA of the certificate to caBundle.
- apiGroups: [apiregistration.k8s.io]
  resources: [apiservices]
  resourceNames: [v1beta1.external.metrics.k8s.io]
  verbs: [get, patch]
{{- end }}
{{- if include "lagwise.observes" . }}
- apiGroups: [keda.sh]
  resources: [clustertriggerauthentications]
  verbs: [list, watch]
{{- end }}
{{- if not (include "lagwise.namespaces" . | fromJson).watched }}
{{- include "lagwise.kedaRules" . }}
{{- if not (include "lagwise.observes" .) }}
# For events on HPAs.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
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

{{- /* A Role for each namespace that is listed. Takes the chart as .chart, the name of the service account as .name,
       the annotations of the objects as .annotations, and whether they are for a job as .job. */ -}}
{{- define "lagwise.namespacedRoles" -}}
{{- $chart := .chart -}}
{{- $job := .job -}}
{{- $name := .name -}}
{{- $annotations := .annotations -}}
{{- $namespaces := include "lagwise.namespaces" $chart | fromJson -}}
{{- $zero := $namespaces.scaleToZero -}}
{{- $write := concat $namespaces.enforce $zero -}}
{{- range $namespace := concat $namespaces.watched $write | uniq | sortAlpha }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}-hpas
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
    verbs: {{ include "lagwise.hpaVerbs" (dict "reads" (has $namespace $namespaces.watched) "writes" (has $namespace $write) "job" $job) }}
  {{- if has $namespace $namespaces.watched }}
  {{- with include "lagwise.kedaRules" $chart }}
  {{- . | trim | nindent 2 }}
  {{- end }}
  {{- if not (or $job (include "lagwise.observes" $chart)) }}
  - apiGroups: [events.k8s.io]
    resources: [events]
    verbs: [create, patch]
  {{- end }}
  {{- end }}
  {{- if has $namespace $zero }}
  {{- include "lagwise.scaleRules" $chart | nindent 2 }}
  {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}-hpas
  namespace: {{ $namespace }}
  labels:
    {{- include "lagwise.labels" $chart | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}-hpas}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $chart.Release.Namespace }}}
{{- end }}
{{- end -}}
