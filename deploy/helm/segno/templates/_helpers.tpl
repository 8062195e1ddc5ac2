{{- define "segno.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "segno.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "segno.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "segno.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "segno.selector" -}}
app.kubernetes.io/name: {{ include "segno.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "segno.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "segno.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "segno.serviceAccount" -}}
{{- default (ternary (include "segno.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "segno.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- /* Whether the state is in PostgreSQL. */}}
{{- define "segno.postgres" -}}
{{- if or .Values.database.existingSecret .Values.database.url }}true{{ end }}
{{- end }}

{{- define "segno.databaseSecret" -}}
{{- default (printf "%s-database" (include "segno.fullname" .)) .Values.database.existingSecret }}
{{- end }}

{{- /* Combinations that cannot work: refused here rather than by a pod that does not start. */}}
{{- define "segno.check" -}}
{{- $pg := include "segno.postgres" . }}
{{- if and (gt (int .Values.replicas) 1) (not $pg) }}
{{- fail "replicas: more than one needs PostgreSQL; set database.existingSecret or database.url" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (eq .Values.auth.mode "keys") (not .Values.auth.adminKey.existingSecret) }}
{{- fail "auth.adminKey.existingSecret: needed with more than one replica, for otherwise one of them prints a generated key" }}
{{- end }}
{{- if and (eq .Values.database.migration "hook") (not .Values.database.existingSecret) }}
{{- fail "database.migration: hook needs database.existingSecret, for hooks run before the chart's own Secret is there" }}
{{- end }}
{{- if eq .Values.auth.mode "oidc" }}
{{- if not (and .Values.auth.oidc.issuer .Values.auth.oidc.audience) }}
{{- fail "auth.oidc: mode oidc needs issuer and audience" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "segno.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- /* What every command that opens the store needs. */}}
{{- define "segno.storeEnv" -}}
{{- if include "segno.postgres" . }}
- { name: SEGNO_DATABASE_URL_FILE, value: /run/secrets/segno/database-url }
{{- else }}
- { name: SEGNO_DATA_DIR, value: /data }
{{- end }}
- { name: SEGNO_LOG_FORMAT, value: {{ .Values.logFormat | quote }} }
{{- end }}

{{- define "segno.storeMounts" -}}
{{- if not (include "segno.postgres" .) }}
- { name: data, mountPath: /data }
{{- end }}
{{- if include "segno.hasSecrets" . }}
- { name: secrets, mountPath: /run/secrets/segno, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "segno.hasSecrets" -}}
{{- if or (include "segno.postgres" .) .Values.auth.adminKey.existingSecret .Values.encryptionKey.existingSecret }}true{{ end }}
{{- end }}

{{- define "segno.secretsVolume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- if include "segno.postgres" . }}
      - secret:
          name: {{ include "segno.databaseSecret" . }}
          items: [{ key: {{ .Values.database.key | quote }}, path: database-url }]
      {{- end }}
      {{- with .Values.auth.adminKey }}
      {{- if .existingSecret }}
      - secret:
          name: {{ .existingSecret }}
          items: [{ key: {{ .key | quote }}, path: admin-key }]
      {{- end }}
      {{- end }}
      {{- with .Values.encryptionKey }}
      {{- if .existingSecret }}
      - secret:
          name: {{ .existingSecret }}
          items: [{ key: {{ .key | quote }}, path: encryption-key }]
      {{- end }}
      {{- end }}
{{- end }}
