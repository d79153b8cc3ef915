{{/*
A process's pod template: (dict "root" $ "name" … "pool" … "process" … "all" … "traces" … "values" … "settings" …)
What it writes lies in volumes: its image is read only.
*/}}
{{- define "moa.pod" -}}
{{- $root := .root -}}
{{- $process := .process -}}
{{- $values := .values -}}
{{- $selector := dict "root" $root "name" .name -}}
metadata:
  labels:
    app.kubernetes.io/name: {{ .name | quote }}
    {{- include "moa.labels" $root | nindent 4 }}
    {{- with mergeOverwrite (deepCopy $root.Values.podLabels) (deepCopy $values.labels) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .pool }}
    moa/pool: {{ . | quote }}
    {{- end }}
  annotations:
    {{- toYaml (mergeOverwrite (deepCopy $root.Values.podAnnotations) (deepCopy $values.annotations) (dict "moa/secrets" $root.Values.secrets.revision)) | nindent 4 }}
spec:
  serviceAccountName: {{ include "moa.serviceAccount" . | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # The drain, the time until nobody sends any more, and last words.
  terminationGracePeriodSeconds: {{ add $root.Values.drainSeconds 20 }}
  securityContext:
    {{- include "moa.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with default $root.Values.priorityClassName $values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "moa.affinity" (dict "root" $root "values" $values) }}
  affinity:
    {{- . | nindent 4 }}
  {{- end }}
  {{- if or $root.Values.topologySpread.zone $root.Values.topologySpread.host }}
  topologySpreadConstraints:
    {{- if $root.Values.topologySpread.zone }}
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "moa.selector" $selector | nindent 10 }}
          {{- with $.pool }}
          moa/pool: {{ . | quote }}
          {{- end }}
    {{- end }}
    {{- if $root.Values.topologySpread.host }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "moa.selector" $selector | nindent 10 }}
          {{- with $.pool }}
          moa/pool: {{ . | quote }}
          {{- end }}
    {{- end }}
  {{- end }}
  # Names are whole: one question each, not one for each part of a search list.
  dnsConfig: {options: [{name: ndots, value: "1"}]}
  containers:
    - name: {{ default .name .container | quote }}
      image: {{ include "moa.image" (dict "root" $root "image" (ternary $root.Values.inferenceImage $root.Values.image $process.torch)) | quote }}
      imagePullPolicy: {{ (ternary $root.Values.inferenceImage $root.Values.image $process.torch).pullPolicy }}
      command: [python, -m, {{ $process.module }}]
      securityContext:
        {{- include "moa.containerSecurity" . | nindent 8 }}
      ports:
        - {name: {{ ternary "grpc" "http" $process.grpc | quote }}, containerPort: {{ $process.port }}}
        {{- if $process.publicPort }}
        - {name: grpc-public, containerPort: {{ $process.publicPort }}}
        {{- end }}
        - {name: metrics, containerPort: {{ $process.metricsPort }}}
        {{- if and $process.grpc $root.Values.serviceTLS.enabled }}
        - {name: health, containerPort: {{ $process.healthPort }}}
        {{- end }}
      env:
        {{- include "moa.env" . | nindent 8 }}
        {{- with $values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if and $process.providers (include "moa.providersSecret" $root) }}
      envFrom: [{secretRef: {name: {{ include "moa.providersSecret" $root | quote }}}}]
      {{- end }}
      # Whether it answers: its loop runs, and it was not asked to stop. What it needs of others is theirs to tell: a
      # database that is away ends no pod. `ready` is whether requests should come: not to a router that could record
      # none, nor to models that are being loaded; that ends no pod either.
      {{- if $process.grpc }}
      # A kubelet speaks no TLS to gRPC.
      {{- $asked := ternary $process.healthPort $process.port $root.Values.serviceTLS.enabled }}
      startupProbe: {grpc: {port: {{ $asked }}}, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 150}
      readinessProbe: {grpc: {port: {{ $asked }}, service: ready}, periodSeconds: 5, timeoutSeconds: 2, failureThreshold: 2}
      livenessProbe: {grpc: {port: {{ $asked }}}, periodSeconds: 15, timeoutSeconds: 5, failureThreshold: 6}
      {{- else }}
      {{- $scheme := ternary "HTTPS" "HTTP" (ne $root.Values.tls.secret "") }}
      startupProbe: {httpGet: {path: /health, port: http, scheme: {{ $scheme }}}, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 60}
      # Not /ready, which asks for a router: an edge without one tells callers so in their dialect, and no Service can.
      readinessProbe: {httpGet: {path: /health, port: http, scheme: {{ $scheme }}}, periodSeconds: 5, timeoutSeconds: 2, failureThreshold: 2}
      livenessProbe: {httpGet: {path: /health, port: http, scheme: {{ $scheme }}}, periodSeconds: 15, timeoutSeconds: 5, failureThreshold: 6}
      {{- end }}
      # Until the endpoint is gone from every resolver new calls still come.
      lifecycle: {preStop: {sleep: {seconds: 5}}}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- with concat $root.Values.extraVolumeMounts $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- range $variable, $folder := $process.folders }}
        - {name: {{ ternary "cache" $folder $process.torch | quote }}, mountPath: /moa/state/{{ $folder }}{{ if $process.torch }}, subPath: {{ $folder }}{{ end }}}
        {{- end }}
        {{- if $process.torch }}
        - {name: cache, mountPath: /home/moa/.cache/huggingface, subPath: huggingface}
        - {name: shared-memory, mountPath: /dev/shm}
        {{- end }}
        {{- if and $process.store (not $root.Values.store.bucket) }}
        - {name: objects, mountPath: /moa/objects}
        {{- end }}
        {{- if or (and $process.catalogue $root.Values.catalogue) (and $process.policies $root.Values.policies) }}
        - {name: config, mountPath: /moa/config, readOnly: true}
        {{- end }}
        {{- $kept := include "moa.keptIn" . }}
        {{- with $kept }}
        - {name: {{ . | quote }}, mountPath: /moa/kept{{ if eq . "cache" }}, subPath: catalogue{{ end }}}
        {{- end }}
        {{- if and $process.grpc (include "moa.credentialsSecret" $root) }}
        - {name: credentials, mountPath: /moa/credentials, readOnly: true}
        {{- end }}
        {{- if $root.Values.serviceTLS.enabled }}
        - {name: service-tls, mountPath: /moa/service-tls, readOnly: true}
        {{- end }}
        {{- if and (not $process.grpc) $root.Values.tls.secret }}
        - {name: tls, mountPath: /moa/tls, readOnly: true}
        {{- end }}
  volumes:
    - {name: tmp, emptyDir: {sizeLimit: {{ ternary "8Gi" "1Gi" $process.torch }}}}
    {{- with concat $root.Values.extraVolumes $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if $process.torch }}
    - {name: shared-memory, emptyDir: {medium: Memory, sizeLimit: 1Gi}}
    {{- with get (default (dict) $values.cache) "existingClaim" }}
    - {name: cache, persistentVolumeClaim: {claimName: {{ . | quote }}}}
    {{- else }}
    {{- if not .claimed }}
    - {name: cache, emptyDir: {}}
    {{- end }}
    {{- end }}
    {{- else }}
    {{- range $variable, $folder := $process.folders }}
    {{- if not $.claimed }}
    - {name: {{ $folder | quote }}, emptyDir: {sizeLimit: 1Gi}}
    {{- end }}
    {{- end }}
    {{- end }}
    {{- if and $process.store (not $root.Values.store.bucket) }}
    - {name: objects, persistentVolumeClaim: {claimName: {{ include "moa.objectsClaim" $root | quote }}}}
    {{- end }}
    {{- if or (and $process.catalogue $root.Values.catalogue) (and $process.policies $root.Values.policies) }}
    - {name: config, configMap: {name: {{ include "moa.fullname" $root }}-config}}
    {{- end }}
    {{- if eq $kept "kept" }}
    - {name: kept, emptyDir: {sizeLimit: 64Mi}}
    {{- end }}
    {{- if and $process.grpc (include "moa.credentialsSecret" $root) }}
    - {name: credentials, secret: {secretName: {{ include "moa.credentialsSecret" $root | quote }}, defaultMode: 288}}
    {{- end }}
    {{- if $root.Values.serviceTLS.enabled }}
    - {name: service-tls, secret: {secretName: {{ include "moa.identitySecret" (dict "root" $root "name" $process.certificateName) | quote }}, defaultMode: 288}}
    {{- end }}
    {{- if and (not $process.grpc) $root.Values.tls.secret }}
    - {name: tls, secret: {secretName: {{ $root.Values.tls.secret | quote }}, defaultMode: 288}}
    {{- end }}
{{- end }}

{{/* The volume with the last good catalogue, by which a process that is started again goes while the file has a fault: with
weights, where there is a volume for them; of a router it is the folder that it has for its journal, of its own accord. */}}
{{- define "moa.keptIn" -}}
{{- if and .process.keeps .root.Values.catalogue (not (hasKey .process.folders "MOA_STATE_DIR")) }}{{ ternary "cache" "kept" .process.torch }}{{ end }}
{{- end }}
