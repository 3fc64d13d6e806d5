{{/* The name of the application, a label. */}}
{{- define "chorale.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The start of every object's name; the longest suffix is "-inference". */}}
{{- define "chorale.fullname" -}}
{{- $name := include "chorale.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "chorale.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "chorale.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "chorale.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "chorale.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Where the roles listen in their pods, and what the health service calls them. */}}
{{- define "chorale.roles" -}}
gateway: {port: 50051, service: chorale.v1.ClassifierService}
feature: {port: 50052, service: chorale.v1.FeatureService}
inference: {port: 50053, service: chorale.v1.InferenceService}
{{- end }}

{{/* Everything that the templates of one role need. Takes a dict of `root` (the top context) and `role`. */}}
{{- define "chorale.roleLabels" -}}
{{ include "chorale.labels" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "chorale.roleSelector" -}}
app.kubernetes.io/name: {{ include "chorale.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "chorale.roleName" -}}
{{ include "chorale.fullname" .root }}-{{ .role }}
{{- end }}

{{/* A role's configuration as environment variables. */}}
{{- define "chorale.roleEnv" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .role -}}
{{- $fullname := include "chorale.fullname" $root -}}
- name: CHORALE_ADMIN__LISTEN
  value: 0.0.0.0:9090
- name: CHORALE_LOG__LEVEL
  value: {{ $root.Values.log.level | quote }}
- name: CHORALE_SHUTDOWN__DELAY
  value: {{ printf "%ds" (int $root.Values.shutdown.delaySeconds) }}
- name: CHORALE_SHUTDOWN__GRACE
  value: {{ printf "%ds" (int $root.Values.shutdown.graceSeconds) }}
{{- if eq .role "gateway" }}
- name: CHORALE_GATEWAY__FEATURE
  value: http://{{ $fullname }}-feature:50052
{{- with $root.Values.cache }}
{{- if .redisUrlSecret.name }}
- name: CHORALE_GATEWAY__CACHE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .redisUrlSecret.name }}
      key: {{ .redisUrlSecret.key }}
{{- else if .redisUrl }}
- name: CHORALE_GATEWAY__CACHE__URL
  value: {{ .redisUrl | quote }}
{{- end }}
{{- end }}
{{- else if eq .role "feature" }}
- name: CHORALE_FEATURE__INFERENCE
  value: http://{{ $fullname }}-inference:50053
{{- end }}
{{- range $name, $value := $values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
