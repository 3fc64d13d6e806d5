{{/* The name of the application, a label. */}}
{{- define "chorale.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The start of every object's name; the longest suffix is "-gateway-headless", and a Service's name has 63 characters. */}}
{{- define "chorale.fullname" -}}
{{- $name := include "chorale.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "chorale.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "chorale.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/*
The roles: where they listen in their pods, what the health service calls them, their sections of the configuration as
environment variables, and whom they call.
*/}}
{{- define "chorale.roles" -}}
gateway: {port: 50051, service: chorale.v1.ClassifierService, calls: feature}
feature: {port: 50052, service: chorale.v1.FeatureService, calls: inference}
inference: {port: 50053, service: chorale.v1.InferenceService}
{{- end }}

{{/* What belongs to one role, or to another component. Takes a dict of `root` (the top context) and `role`. */}}
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

{{/* The name and the place of an object of a role. */}}
{{- define "chorale.roleMetadata" -}}
name: {{ include "chorale.roleName" . }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "chorale.roleLabels" . | nindent 2 }}
{{- end }}

{{/* The headless Service of a role, which lists every replica. The gateway has one for all callers beside it. */}}
{{- define "chorale.headlessName" -}}
{{ include "chorale.roleName" . }}{{ if eq .role "gateway" }}-headless{{ end }}
{{- end }}

{{- define "chorale.serviceAccountName" -}}
{{- if .root.Values.serviceAccount.create -}}
{{ include "chorale.roleName" . }}
{{- else -}}
{{ default "default" (index .root.Values .role).serviceAccountName }}
{{- end }}
{{- end }}

{{/* The image. Takes a dict of `root` and `gpu`. */}}
{{- define "chorale.image" -}}
{{- $image := .root.Values.image -}}
{{- $digest := ternary $image.cudaDigest $image.digest .gpu -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{- if $digest -}}
{{ $image.repository }}@{{ $digest }}
{{- else -}}
{{ $image.repository }}:{{ $tag }}{{ if .gpu }}{{ $image.cudaSuffix }}{{ end }}
{{- end }}
{{- end }}

{{/* What every pod is allowed: the profile "restricted" of the pod security standards. */}}
{{- define "chorale.podSecurityContext" -}}
runAsNonRoot: true
{{- if .Values.podSecurity.fixedIds }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "chorale.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Whether the port of a role speaks TLS: "true", or nothing. */}}
{{- define "chorale.roleServesTls" -}}
{{- $tls := .root.Values.tls -}}
{{- if and (ne $tls.mode "none") (or (ne .role "gateway") $tls.gateway.enabled) }}true{{ end }}
{{- end }}

{{/* Whether inference may have no replica at all: "true", or nothing. */}}
{{- define "chorale.scalesFromZero" -}}
{{- $scaling := .Values.inference.autoscaling -}}
{{- if and $scaling.enabled (eq (int $scaling.minReplicas) 0) }}true{{ end }}
{{- end }}

{{/* The Secret with who a role is: tls.crt, tls.key, ca.crt. */}}
{{- define "chorale.tlsSecretName" -}}
{{- if eq .root.Values.tls.mode "certManager" -}}
{{ include "chorale.roleName" . }}-tls
{{- else -}}
{{ index .root.Values.tls.secrets .role }}
{{- end }}
{{- end }}

{{/* Where Redis is, if its URL is no secret. */}}
{{- define "chorale.redisUrl" -}}
{{- if .Values.redis.enabled -}}
redis://{{ include "chorale.fullname" . }}-redis:6379
{{- else -}}
{{ .Values.cache.redisUrl }}
{{- end }}
{{- end }}

{{/* The port of an existing Redis: that of its URL, or, where the URL is a secret, that of the network policy. */}}
{{- define "chorale.redisPort" -}}
{{- if .Values.cache.redisUrl -}}
{{ default "6379" (regexFind ":[0-9]+$" (urlParse .Values.cache.redisUrl).host | trimPrefix ":") }}
{{- else -}}
{{ .Values.networkPolicy.redis.port }}
{{- end }}
{{- end }}

{{/* What `helm test` calls, or nothing where it has no means to. */}}
{{- define "chorale.testEndpoint" -}}
{{- $values := .Values -}}
{{- $context := dict "root" . "role" "gateway" -}}
{{- $secure := include "chorale.roleServesTls" $context -}}
{{- $token := or $values.test.tokenSecret.name (not (or $values.auth.callersSecret.name $values.auth.jwt.issuer)) -}}
{{- $certificate := or $values.test.clientSecret (not (and $secure $values.tls.gateway.clientCaSecret)) -}}
{{- $authority := or $values.test.endpoint $values.test.caSecret (not (and $secure $values.tls.gateway.secretName)) -}}
{{- if and $values.test.enabled $token $certificate $authority -}}
{{- $own := printf "%s://%s:%d" (ternary "https" "http" (eq $secure "true")) (include "chorale.roleName" $context) (int $values.gateway.service.port) -}}
{{ default $own $values.test.endpoint }}
{{- end }}
{{- end }}

{{/* The variables that the chart sets for a role, as a list. */}}
{{- define "chorale.roleEnv" -}}
{{- $root := .root -}}
{{- $facts := index (include "chorale.roles" $root | fromYaml) .role -}}
{{- $section := upper .role -}}
- name: CHORALE_ADMIN__LISTEN
  value: 0.0.0.0:9090
- name: CHORALE_{{ $section }}__LISTEN
  value: 0.0.0.0:{{ $facts.port }}
{{- if eq .role "gateway" }}
{{- with $root.Values.gateway.page }}
{{- if and .enabled (has (int .port) (list (int $facts.port) 9090)) }}
{{- fail (printf "gateway.page.port is %d, which gRPC or the admin port has: choose another one, for example 8080" (int .port)) }}
{{- end }}
- name: CHORALE_GATEWAY__HTTP__ENABLED
  value: {{ .enabled | quote }}
{{- if .enabled }}
- name: CHORALE_GATEWAY__HTTP__LISTEN
  value: 0.0.0.0:{{ .port }}
{{- end }}
{{- end }}
{{- end }}
- name: CHORALE_LOG__LEVEL
  value: {{ $root.Values.log.level | quote }}
# The pod's preStop has waited already.
- name: CHORALE_SHUTDOWN__DELAY
  value: 0s
- name: CHORALE_SHUTDOWN__GRACE
  value: {{ printf "%ds" (int $root.Values.shutdown.graceSeconds) }}
{{- with $root.Values.tracing.endpoint }}
- name: CHORALE_TELEMETRY__OTLP_ENDPOINT
  value: {{ . | quote }}
- name: CHORALE_TELEMETRY__SAMPLE_RATIO
  value: {{ $root.Values.tracing.sampleRatio | quote }}
{{- if $root.Values.tracing.caSecret.name }}
- name: CHORALE_TELEMETRY__OTLP_TLS__CA
  value: /tracing/ca.crt
{{- end }}
{{- end }}
{{- with $facts.calls }}
- name: CHORALE_{{ $section }}__{{ upper . }}
  value: {{ ternary "http" "https" (eq $root.Values.tls.mode "none") }}://{{ include "chorale.roleName" (dict "root" $root "role" .) }}:{{ (index (include "chorale.roles" $root | fromYaml) .).port }}
{{- end }}
{{- if ne $root.Values.tls.mode "none" }}
{{- with $facts.calls }}
- name: CHORALE_{{ $section }}__{{ upper . }}_TLS__CA
  value: /tls/role/ca.crt
- name: CHORALE_{{ $section }}__{{ upper . }}_TLS__CERTIFICATE
  value: /tls/role/tls.crt
- name: CHORALE_{{ $section }}__{{ upper . }}_TLS__KEY
  value: /tls/role/tls.key
{{- end }}
{{- if ne .role "gateway" }}
- name: CHORALE_{{ $section }}__TLS__CERTIFICATE
  value: /tls/role/tls.crt
- name: CHORALE_{{ $section }}__TLS__KEY
  value: /tls/role/tls.key
- name: CHORALE_{{ $section }}__TLS__CLIENT_CA
  value: /tls/role/ca.crt
{{- else if $root.Values.tls.gateway.enabled }}
{{- $shown := ternary "/tls/public" "/tls/role" (ne $root.Values.tls.gateway.secretName "") }}
- name: CHORALE_GATEWAY__TLS__CERTIFICATE
  value: {{ $shown }}/tls.crt
- name: CHORALE_GATEWAY__TLS__KEY
  value: {{ $shown }}/tls.key
{{- if $root.Values.tls.gateway.clientCaSecret }}
- name: CHORALE_GATEWAY__TLS__CLIENT_CA
  value: /tls/callers/ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- if eq .role "gateway" }}
- name: CHORALE_GATEWAY__LIMITS__MAX_CONCURRENT_STREAMS
  value: {{ $root.Values.gateway.maxConcurrentStreams | quote }}
{{- with $root.Values.cache }}
{{- if .redisUrlSecret.name }}
- name: CHORALE_GATEWAY__CACHE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .redisUrlSecret.name }}
      key: {{ .redisUrlSecret.key }}
{{- else if include "chorale.redisUrl" $root }}
- name: CHORALE_GATEWAY__CACHE__URL
  value: {{ include "chorale.redisUrl" $root | quote }}
{{- end }}
{{- if .passwordSecret.name }}
- name: CHORALE_GATEWAY__CACHE__PASSWORD_FILE
  value: /cache/password
{{- end }}
{{- if .sealSecret.name }}
- name: CHORALE_GATEWAY__CACHE__SECRET_FILE
  value: /cache/seal
{{- end }}
{{- if .caSecret.name }}
- name: CHORALE_GATEWAY__CACHE__TLS__CA
  value: /cache/ca.crt
{{- end }}
{{- end }}
{{- with $root.Values.auth }}
{{- if .callersSecret.name }}
- name: CHORALE_GATEWAY__AUTH__CALLERS_FILE
  value: /auth/callers/callers.toml
{{- end }}
{{- if .jwt.issuer }}
- name: CHORALE_GATEWAY__AUTH__JWT__JWKS_FILE
  value: /auth/jwks/jwks.json
- name: CHORALE_GATEWAY__AUTH__JWT__ISSUER
  value: {{ .jwt.issuer | quote }}
- name: CHORALE_GATEWAY__AUTH__JWT__AUDIENCE
  value: {{ .jwt.audience | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq .role "inference" }}
# As many threads compute as CPUs are requested, rounded up: the cores of the node are others' too.
- name: RAYON_NUM_THREADS
  valueFrom:
    resourceFieldRef:
      containerName: inference
      resource: requests.cpu
      divisor: "1"
{{- with $root.Values.inference }}
{{- if .modelsVolume }}
- name: CHORALE_INFERENCE__MODELS
  value: /models
{{- end }}
{{- if .gpu.enabled }}
- name: CHORALE_INFERENCE__DEVICES
  value: {{ range $gpu := until (int .gpu.count) }}{{ if $gpu }},{{ end }}cuda:{{ $gpu }}{{ end }}
# cuda:0 is the first on the bus, as nvidia-smi counts, and not the fastest.
- name: CUDA_DEVICE_ORDER
  value: PCI_BUS_ID
- name: NVIDIA_DRIVER_CAPABILITIES
  value: compute,utility
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The volumes of a role, as a list of dicts: a volume, and where it is mounted. */}}
{{- define "chorale.roleVolumes" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .role -}}
{{- with $values.scratch }}
- mount: {name: scratch, mountPath: /tmp}
  volume:
    name: scratch
    emptyDir:
      sizeLimit: {{ .sizeLimit }}
{{- end }}
{{- with $values.modelsVolume }}
- mount: {name: models, mountPath: /models, readOnly: true}
  volume:
    name: models
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- if and (eq .role "inference") $values.gpu.enabled }}
- mount: {name: shared-memory, mountPath: /dev/shm}
  volume:
    name: shared-memory
    emptyDir:
      medium: Memory
      sizeLimit: {{ $values.gpu.sharedMemory }}
{{- end }}
{{- with $root.Values.tracing }}
{{- if and .endpoint .caSecret.name }}
- mount: {name: tracing, mountPath: /tracing, readOnly: true}
  volume:
    name: tracing
    secret:
      secretName: {{ .caSecret.name }}
      defaultMode: 0440
      items:
        - key: {{ .caSecret.key }}
          path: ca.crt
{{- end }}
{{- end }}
{{- if ne $root.Values.tls.mode "none" }}
- mount: {name: tls, mountPath: /tls/role, readOnly: true}
  volume:
    name: tls
    secret:
      secretName: {{ include "chorale.tlsSecretName" . }}
      defaultMode: 0440
{{- end }}
{{- if eq .role "gateway" }}
{{- if include "chorale.roleServesTls" . }}
{{- with $root.Values.tls.gateway.secretName }}
- mount: {name: tls-public, mountPath: /tls/public, readOnly: true}
  volume:
    name: tls-public
    secret:
      secretName: {{ . }}
      defaultMode: 0440
{{- end }}
{{- with $root.Values.tls.gateway.clientCaSecret }}
- mount: {name: tls-callers, mountPath: /tls/callers, readOnly: true}
  volume:
    name: tls-callers
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      # A Secret of an authority may hold its key as well.
      items:
        - key: ca.crt
          path: ca.crt
{{- end }}
{{- end }}
{{- with $root.Values.cache }}
{{- if or .passwordSecret.name .sealSecret.name .caSecret.name }}
- mount: {name: cache, mountPath: /cache, readOnly: true}
  volume:
    name: cache
    projected:
      defaultMode: 0440
      sources:
        {{- range $path, $secret := dict "password" .passwordSecret "seal" .sealSecret "ca.crt" .caSecret }}
        {{- if $secret.name }}
        - secret:
            name: {{ $secret.name }}
            items:
              - key: {{ $secret.key }}
                path: {{ $path }}
        {{- end }}
        {{- end }}
{{- end }}
{{- end }}
{{- range $name, $secret := dict "callers" $root.Values.auth.callersSecret "jwks" $root.Values.auth.jwt.jwksSecret }}
{{- if $secret.name }}
- mount: {name: {{ $name }}, mountPath: /auth/{{ $name }}, readOnly: true}
  volume:
    name: {{ $name }}
    secret:
      secretName: {{ $secret.name }}
      defaultMode: 0440
      items:
        - key: {{ $secret.key }}
          path: {{ ternary "callers.toml" "jwks.json" (eq $name "callers") }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
One probe. Kubelets speak gRPC without TLS only; with TLS, the admin port says the same over HTTP. Takes a dict of
`secure`, `port`, `path` and `service`, whose empty name is the process.
*/}}
{{- define "chorale.probe" -}}
{{- if .secure -}}
httpGet:
  port: admin
  path: {{ .path }}
{{- else -}}
grpc:
  port: {{ .port }}
  service: {{ .service | quote }}
{{- end }}
{{- end }}

{{/* Devices of an inference pod: each has a thread, and a series of its own. */}}
{{- define "chorale.devicesPerPod" -}}
{{ ternary (int .Values.inference.gpu.count) 1 .Values.inference.gpu.enabled }}
{{- end }}

{{/* The wait for a device that is aimed at, in seconds. */}}
{{- define "chorale.targetQueueWait" -}}
{{- $inference := .Values.inference -}}
{{ ternary $inference.gpu.targetQueueWaitSeconds $inference.autoscaling.targetQueueWaitSeconds $inference.gpu.enabled }}
{{- end }}

{{/* The gRPC services that are published. Takes whether reflection is. */}}
{{- define "chorale.publicServices" -}}
- chorale.v1.ClassifierService
# The Open Inference Protocol.
- inference.GRPCInferenceService
{{- if . }}
- grpc.health.v1.Health
- grpc.reflection.v1.ServerReflection
- grpc.reflection.v1alpha.ServerReflection
{{- end }}
{{- end }}
