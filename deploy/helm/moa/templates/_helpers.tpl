{{/* A quantity of Kubernetes as a number, to compare with another. */}}
{{- define "moa.amount" -}}
{{- $sizes := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $text := include "moa.text" . -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $sizes (regexFind "[A-Za-z]+$" $text) | default 1.0) -}}
{{- end }}

{{/* What all objects' names begin with. A pool's StatefulSet is `<this>-inference-<16>`, and has 52 letters at most: a
longer one is cut, and told from others that begin alike by a digest. */}}
{{- define "moa.fullname" -}}
{{- $name := .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name)) -}}
{{- if gt (len $name) 25 }}{{ printf "%s-%s" ($name | trunc 19 | trimSuffix "-") (sha256sum $name | trunc 5) }}{{ else }}{{ $name }}{{ end }}
{{- end }}

{{/* A pattern of the names of this release's pods, which those of a release `<this>-b` do not have. */}}
{{- define "moa.pods" -}}
{{ include "moa.fullname" . }}-({{ join "|" (keys (.Files.Get "files/topology.json" | fromJson).processes | sortAlpha) }})-.+
{{- end }}

{{/* A setting's value as text. Numbers of YAML are floating-point here, and those of a million and more would be 1e+06. */}}
{{- define "moa.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{- define "moa.labels" -}}
app.kubernetes.io/part-of: moa
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels that find a process's pods: (dict "root" $ "name" "router") */}}
{{- define "moa.selector" -}}
app.kubernetes.io/name: {{ .name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end }}

{{/* The topology's processes that this release has, as JSON, which is read sooner than YAML. */}}
{{- define "moa.processes" -}}
{{- $table := .Files.Get "files/topology.json" | fromJson -}}
{{- $found := dict -}}
{{- range $name, $usual := $table.processes -}}
{{- $process := $usual -}}
{{- if and (eq (toString $.Values.settings.MOA_COLOCATE) "text") (hasKey $table.colocated $name) -}}
{{- $process = get $table.colocated $name -}}
{{- end -}}
{{- if and $process (or $.Values.largeRequests.enabled (not $process.standsIn)) }}{{ $_ := set $found $name $process }}{{ end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{/* A process's values over the defaults, as JSON: (dict "root" $ "values" …) */}}
{{- define "moa.values" -}}
{{- toJson (mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy (default (dict) .values))) -}}
{{- end }}

{{/* A pool's values, over those of all pools, as JSON: (dict "root" $ "values" …) */}}
{{- define "moa.pool" -}}
{{- $own := mergeOverwrite (deepCopy .root.Values.inference.defaults) (deepCopy (default (dict) .values)) }}
{{- include "moa.values" (dict "root" .root "values" $own) -}}
{{- end }}

{{/* Between how many pods a pool is scaled, as JSON: (dict "root" $ "values" …) */}}
{{- define "moa.poolBounds" -}}
{{- $own := (fromJson (include "moa.pool" .)).keda }}
{{- toJson (mergeOverwrite (deepCopy .root.Values.keda.inference) (deepCopy (default (dict) $own))) -}}
{{- end }}

{{/* An address inside the cluster: (dict "root" $ "name" "router" "port" 8101) */}}
{{- define "moa.address" -}}
{{ include "moa.fullname" .root }}-{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}:{{ .port }}
{{- end }}

{{/* A zone's pods of a process that the edge looks up, by a service of their own: (dict "root" $ "name" "router" "zone" "a") */}}
{{- define "moa.zoned" -}}
{{ include "moa.fullname" .root }}-{{ .name }}-{{ .zone }}
{{- end }}

{{/* Addresses of a process in each zone: (dict "root" $ "name" "router" "port" 8101) */}}
{{- define "moa.zonedAddresses" -}}
{{- $found := list -}}
{{- range .root.Values.zones.names -}}
{{- $found = append $found (printf "%s@%s" (include "moa.address" (dict "root" $.root "name" (printf "%s-%s" $.name .) "port" $.port)) .) -}}
{{- end -}}
{{ join "," $found }}
{{- end }}

{{/* Its service for each zone: (dict "root" $ "name" "router" "port" 8101 "target" "grpc") */}}
{{- define "moa.zonedServices" -}}
{{- range $zone := .root.Values.zones.names }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "moa.zoned" (dict "root" $.root "name" $.name "zone" $zone) | quote }}
  labels:
    app.kubernetes.io/name: {{ $.name | quote }}
    {{- include "moa.labels" $.root | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "moa.selector" (dict "root" $.root "name" $.name) | nindent 4 }}
    {{ $.root.Values.zones.label }}: {{ $zone | quote }}
  ports:
    - {name: {{ $.target | quote }}, port: {{ $.port }}, targetPort: {{ $.target }}, appProtocol: kubernetes.io/h2c}
{{- end }}
{{- end }}

{{/* Where a process's pods may run, with the zones that have names: (dict "root" $ "values" …) */}}
{{- define "moa.affinity" -}}
{{- $zones := dict -}}
{{- with .root.Values.zones.names -}}
{{- $term := dict "matchExpressions" (list (dict "key" "topology.kubernetes.io/zone" "operator" "In" "values" .)) -}}
{{- $zones = dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" (list $term))) -}}
{{- end -}}
{{- with mergeOverwrite $zones (deepCopy .values.affinity) -}}
{{ toYaml . }}
{{- end -}}
{{- end }}

{{- define "moa.image" -}}
{{- $image := .image -}}
{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .root.Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- define "moa.coreSecret" -}}
{{- if .Values.secrets.existing }}{{ .Values.secrets.existing }}
{{- else if or .Values.secrets.generate .Values.externalSecrets.enabled }}{{ include "moa.fullname" . }}-core
{{- else }}{{ fail "secrets.existing names the secret with MOA_SERVICE_TOKEN and MOA_KEY_PEPPER; for a trial set secrets.generate=true" }}
{{- end }}
{{- end }}

{{- define "moa.providersSecret" -}}
{{- if .Values.secrets.providers }}{{ .Values.secrets.providers }}
{{- else if and .Values.externalSecrets.enabled .Values.externalSecrets.providers }}{{ include "moa.fullname" . }}-providers
{{- end }}
{{- end }}

{{/* The secret of the credentials that processes show each other; empty: they have MOA_SERVICE_TOKEN alone. */}}
{{- define "moa.credentialsSecret" -}}
{{- if .Values.secrets.credentials }}{{ .Values.secrets.credentials }}
{{- else if and .Values.externalSecrets.enabled .Values.externalSecrets.credentials }}{{ include "moa.fullname" . }}-credentials
{{- end }}
{{- end }}

{{/* The account of a process's or a job's pods: (dict "root" $ "name" "text" "values" … "own" true: not that of all) */}}
{{- define "moa.serviceAccount" -}}
{{- if .values.serviceAccount.name }}{{ .values.serviceAccount.name }}
{{- else if or .own .values.serviceAccount.annotations }}{{ include "moa.fullname" .root }}-{{ .name }}
{{- else }}{{ include "moa.fullname" .root }}
{{- end }}
{{- end }}

{{- define "moa.databaseSecret" -}}
{{- if .Values.database.existingSecret }}{{ .Values.database.existingSecret }}
{{- else if .Values.database.cloudNativePG.enabled }}{{ include "moa.fullname" . }}-db-app
{{- else }}{{ fail "database.existingSecret names the secret with PostgreSQL's address under `uri`, or set database.cloudNativePG.enabled=true where its operator runs" }}
{{- end }}
{{- end }}

{{- define "moa.objectsClaim" -}}
{{- default (printf "%s-objects" (include "moa.fullname" .)) .Values.store.volume.existingClaim -}}
{{- end }}

{{/* The files that processes read again when they change. */}}
{{- define "moa.config" -}}
{{- with .Values.catalogue }}
catalogue.yaml: |
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.policies }}
policies.yaml: |
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The DNS name that a process's certificate is for: (dict "root" $ "name" "router"); "{}" for any. */}}
{{- define "moa.identity" -}}
{{ include "moa.fullname" .root }}-{{ .name }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end }}

{{- define "moa.identitySecret" -}}
{{ default (printf "%s-tls-" (include "moa.fullname" .root)) .root.Values.serviceTLS.secretPrefix }}{{ .name }}
{{- end }}

{{- define "moa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "moa.podSecurity" -}}
runAsNonRoot: true
{{- if ne (toString .Values.runAsUser) "assigned" }}
runAsUser: {{ int64 .Values.runAsUser }}
runAsGroup: {{ int64 .Values.runAsUser }}
fsGroup: {{ int64 .Values.runAsUser }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* A process's environment: (dict "root" $ "name" … "process" … "all" the processes "traces" the table's "settings" settings of its own) */}}
{{- define "moa.env" -}}
{{- $root := .root -}}
{{- $process := .process -}}
{{- $all := .all -}}
{{- $edge := not $process.grpc -}}
- {name: MOA_LISTEN, value: "0.0.0.0:{{ $process.port }}"}
{{- if and $root.Values.zones.names $process.zoned }}
- name: MOA_ZONE
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['{{ $root.Values.zones.label }}']"}}
{{- end }}
{{- if $process.torch }}
# A user that the image does not know would have the working folder for its home, which is read only.
- {name: HF_HOME, value: /home/moa/.cache/huggingface}
{{- end }}
{{- if $process.publicPort }}
- {name: MOA_PUBLIC_LISTEN, value: "0.0.0.0:{{ $process.publicPort }}"}
{{- end }}
{{- if $edge }}
- {name: MOA_INTERNAL_LISTEN, value: "0.0.0.0:{{ $process.metricsPort }}"}
- {name: MOA_EDGE_PROCESSES, value: "1"}
- {name: MOA_EDGE_LOOK_S, value: "1"}
{{- if $root.Values.zones.names }}
- {name: MOA_EDGE_ADDRESSES, value: {{ include "moa.zonedAddresses" (dict "root" $root "name" "edge" "port" $process.port) | quote }}}
{{- end }}
{{- if $root.Values.tls.secret }}
- {name: MOA_TLS_CERT, value: /moa/tls/tls.crt}
- {name: MOA_TLS_KEY, value: /moa/tls/tls.key}
{{- end }}
{{- else }}
- {name: MOA_METRICS_HOST, value: 0.0.0.0}
- {name: MOA_METRICS_PORT, value: {{ $process.metricsPort | quote }}}
- {name: MOA_CONNECTION_AGE_S, value: {{ include "moa.text" $root.Values.connectionAgeSeconds | quote }}}
{{- end }}
{{- if and $process.grpc (include "moa.credentialsSecret" $root) }}
- {name: MOA_SERVICE_TOKEN_FILE, value: /moa/credentials/credentials}
{{- end }}
{{- if $root.Values.serviceTLS.enabled }}
- {name: MOA_SERVICE_TLS_DIR, value: /moa/service-tls}
- {name: MOA_SERVICE_TLS_NAME, value: {{ include "moa.identity" (dict "root" $root "name" "{}") | quote }}}
{{- if not $edge }}
- {name: MOA_HEALTH_LISTEN, value: "0.0.0.0:{{ $process.healthPort }}"}
{{- end }}
{{- end }}
- {name: MOA_DRAIN_S, value: {{ include "moa.text" $root.Values.drainSeconds | quote }}}
{{- range $variable, $callee := $process.calls }}
{{- $called := get $all $callee }}
{{- if $called }}
{{- $address := ternary "moa.zonedAddresses" "moa.address" (and $edge (not (empty $root.Values.zones.names))) }}
- name: {{ $variable | quote }}
  value: {{ include $address (dict "root" $root "name" $callee "port" (ternary $called.publicPort $called.port (and $edge (ne (int $called.publicPort) 0)))) | quote }}
{{- end }}
{{- end }}
{{- if hasKey $process.calls "MOA_INFERENCE_ADDRESS" }}
{{- $pools := list }}
{{- range $pool := without (keys $root.Values.inference.pools | sortAlpha) "default" }}
{{- $pools = append $pools (printf "%s=%s" $pool (include "moa.address" (dict "root" $root "name" (printf "inference-%s" $pool) "port" (get $all "inference").port))) }}
{{- end }}
{{- with $pools }}
- {name: MOA_INFERENCE_POOLS, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- if and $process.torch (ne .pool "default") }}
- {name: MOA_POOL, value: {{ .pool | quote }}}
{{- end }}
{{- if $process.catalogue }}
- {name: MOA_CATALOGUE, value: {{ ternary "/moa/config/catalogue.yaml" "/moa/gateway/catalogue.yaml" (ne $root.Values.catalogue "") | quote }}}
{{- end }}
{{- if include "moa.keptIn" . }}
- {name: MOA_CATALOGUE_KEPT, value: /moa/kept}
{{- end }}
{{- if and $process.policies $root.Values.policies }}
- {name: MOA_POLICIES, value: /moa/config/policies.yaml}
{{- end }}
{{- if $process.named }}
- {name: MOA_VARIABLES_SET, value: {{ join "," $root.Values.secrets.providersSet | quote }}}
{{- end }}
{{- if or $process.providers $process.named }}
{{- range $variable, $value := $root.Values.providerSettings }}
- {name: {{ $variable | quote }}, value: {{ include "moa.text" $value | quote }}}
{{- end }}
{{- end }}
{{- range $variable, $value := $process.fixed }}
- {name: {{ $variable | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- range $variable, $folder := $process.folders }}
- {name: {{ $variable | quote }}, value: /moa/state/{{ $folder }}}
{{- end }}
{{- if $process.store }}
{{- with $root.Values.store }}
{{- if .bucket }}
- {name: MOA_STORE_BUCKET, value: {{ .bucket | quote }}}
- {name: MOA_STORE_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: MOA_STORE_REGION, value: {{ .region | quote }}}
{{- else }}
- {name: MOA_STORE_DIR, value: /moa/objects}
{{- end }}
{{- end }}
{{- end }}
{{- $settings := mergeOverwrite (deepCopy $root.Values.settings) (deepCopy (default (dict) .settings)) }}
{{- range $variable := $process.settings }}
{{- $value := include "moa.text" (get $settings $variable) }}
{{- if ne $value "" }}
- {name: {{ $variable | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- if $process.database }}
- name: MOA_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ include "moa.databaseSecret" $root | quote }}, key: {{ $root.Values.database.key | quote }}}}
{{- end }}
{{- range $variable := $process.secrets }}
{{- if ne $variable "MOA_DATABASE_URL" }}
- name: {{ $variable | quote }}
  valueFrom: {secretKeyRef: {name: {{ include "moa.coreSecret" $root | quote }}, key: {{ $variable | quote }}{{ if not (has $variable (list "MOA_SERVICE_TOKEN" "MOA_KEY_PEPPER")) }}, optional: true{{ end }}}}
{{- end }}
{{- end }}
{{- $traces := .traces }}
{{- with $root.Values.traces }}
{{- if .endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
{{- if .sampler }}
- {name: OTEL_TRACES_SAMPLER, value: {{ .sampler | quote }}}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .samplerArg | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- range $variable := $traces.settings }}
{{- $value := include "moa.text" (get $settings $variable) }}
{{- if ne $value "" }}
- {name: {{ $variable | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- if include "moa.collectors" $root }}
{{- range $variable := $traces.secrets }}
- name: {{ $variable | quote }}
  valueFrom: {secretKeyRef: {name: {{ include "moa.coreSecret" $root | quote }}, key: {{ $variable | quote }}, optional: true}}
{{- end }}
{{- end }}
{{- end }}
