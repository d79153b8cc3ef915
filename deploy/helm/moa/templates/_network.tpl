{{/* A range of addresses as the bits of its first one: of 10.0.0.0/8 "00001010…". */}}
{{- define "moa.bits" -}}
{{- $address := first (splitList "/" .) -}}
{{- if contains ":" $address -}}
{{- $halves := splitList "::" $address -}}
{{- $left := splitList ":" (first $halves) | compact -}}
{{- $right := list -}}
{{- if gt (len $halves) 1 -}}{{ $right = splitList ":" (last $halves) | compact }}{{- end -}}
{{- range $left -}}{{ printf "%016b" (int64 (printf "0x%s" .)) }}{{- end -}}
{{- range until (sub 8 (add (len $left) (len $right)) | int) -}}{{ printf "%016b" 0 }}{{- end -}}
{{- range $right -}}{{ printf "%016b" (int64 (printf "0x%s" .)) }}{{- end -}}
{{- else -}}
{{- range splitList "." $address -}}{{ printf "%08b" (int .) }}{{- end -}}
{{- end -}}
{{- end }}

{{/* "yes" where a range lies within another and is less than it, as Kubernetes wants of an exception: (dict "range" … "of" …) */}}
{{- define "moa.within" -}}
{{- $length := last (splitList "/" .of) | int -}}
{{- $alike := eq (contains ":" .range) (contains ":" .of) -}}
{{- if and $alike (gt (last (splitList "/" .range) | int) $length) (eq (trunc $length (include "moa.bits" .range)) (trunc $length (include "moa.bits" .of))) }}yes{{ end -}}
{{- end }}

{{/*
Rules of a network policy: to where names are resolved, to PostgreSQL, and outside. A rule with an empty list would be one for
everybody, so where there is nothing to name there is no rule.
*/}}
{{- define "moa.egressToNames" -}}
{{- with .Values.networkPolicies.dns }}
- to:
    {{- toYaml .to | nindent 4 }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}
{{- define "moa.egressToDatabase" -}}
{{- with .Values.database }}
- ports:
    {{- range concat (list .port) .extraPorts | uniq }}
    - {port: {{ . }}}
    {{- end }}
  to:
    {{- if and .cloudNativePG.enabled (not .existingSecret) }}
    - podSelector: {matchLabels: {cnpg.io/cluster: {{ include "moa.fullname" $ }}-db}}
    {{- end }}
    {{- with .podSelector }}
    - podSelector:
        {{- toYaml . | nindent 8 }}
    {{- end }}
    {{- with .peers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}
{{- define "moa.databaseUsers" -}}
{{- $names := list -}}
{{- range $name, $process := fromJson (include "moa.processes" .) -}}{{ if $process.database }}{{ $names = append $names $name }}{{ end }}{{- end -}}
{{ sortAlpha $names | join ", " }}
{{- end }}
{{- define "moa.egressOutside" -}}
{{- with .Values.networkPolicies.external }}
{{- if and .cidrs .ports }}
{{- $excepted := concat .except .exceptV6 }}
- to:
    {{- range $cidr := .cidrs }}
    - ipBlock:
        cidr: {{ $cidr | quote }}
        {{- $within := list }}
        {{- range $excepted }}
        {{- if include "moa.within" (dict "range" . "of" $cidr) }}{{ $within = append $within . }}{{ end }}
        {{- end }}
        {{- with $within }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    {{- end }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where traces and logged requests go, parted by blanks. */}}
{{- define "moa.collectors" -}}
{{- compact (list .Values.traces.endpoint (get .Values.settings "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") (get .Values.settings "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")) | join " " -}}
{{- end }}
