{{/*
A job that must end well before the rest of a release is brought: (dict "root" $ "name" "migrate-auth" "weight" 1 "hook" …
"command" (list …) "env" text "account" values "accountOf" "migrate" "mounts" (list …) "volumes" (list …))
*/}}
{{- define "moa.job" -}}
{{- $root := .root -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "moa.fullname" $root }}-{{ .name }}
  labels:
    app.kubernetes.io/name: {{ .name | quote }}
    {{- include "moa.labels" $root | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .hook }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
    helm.sh/hook-weight: {{ .weight | quote }}
spec:
  backoffLimit: {{ .retries }}
  activeDeadlineSeconds: 1800
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {{ .name | quote }}
        {{- include "moa.labels" $root | nindent 8 }}
        {{- with mergeOverwrite (deepCopy $root.Values.podLabels) (deepCopy $root.Values.defaults.labels) }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with mergeOverwrite (deepCopy $root.Values.podAnnotations) (deepCopy $root.Values.defaults.annotations) }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ include "moa.serviceAccount" (dict "root" $root "name" .accountOf "values" .account "own" true) | quote }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        {{- include "moa.podSecurity" $root | nindent 8 }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      {{- range $where := list "nodeSelector" "tolerations" "affinity" }}
      {{- with get $root.Values.defaults $where }}
      {{ $where }}:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      containers:
        - name: {{ .container | quote }}
          image: {{ include "moa.image" (dict "root" $root "image" $root.Values.image) | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command:
            {{- toYaml .command | nindent 12 }}
          securityContext:
            {{- include "moa.containerSecurity" $root | nindent 12 }}
          env:
            {{- .env | nindent 12 }}
            {{- with $root.Values.defaults.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          resources:
            {{- toYaml $root.Values.migrations.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with concat $root.Values.extraVolumeMounts (default list .mounts) }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
        {{- with concat $root.Values.extraVolumes (default list .volumes) }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{/*
The account of jobs' pods, where they have one of their own: it is there before them, and goes with them, for nothing else of
the release is there yet. (dict "root" $ "name" "migrate" "hook" … "values" values)
*/}}
{{- define "moa.jobAccount" -}}
{{- if not .values.serviceAccount.name }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "moa.serviceAccount" (dict "root" .root "name" .name "values" .values "own" true) | quote }}
  labels:
    app.kubernetes.io/name: {{ .name | quote }}
    {{- include "moa.labels" .root | nindent 4 }}
  annotations:
    {{- $hook := dict "helm.sh/hook" .hook "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" "helm.sh/hook-weight" "-3" }}
    {{- mergeOverwrite (deepCopy .values.serviceAccount.annotations) $hook | toYaml | nindent 4 }}
automountServiceAccountToken: false
{{- end }}
{{- end }}
