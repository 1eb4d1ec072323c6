{{- define "mintmark.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "mintmark.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What belongs to every object. Takes [root, component]. */}}
{{- define "mintmark.labels" -}}
{{- $root := index . 0 -}}
{{ include "mintmark.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "mintmark.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The Pod Security standard `restricted`, and nothing of the cluster's API for anybody. */}}
{{- define "mintmark.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false # a Service called mintmark-gateway would set MINTMARK_GATEWAY_PORT to tcp://…
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "mintmark.containerSecurity" -}}
image: {{ include "mintmark.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* One DSN from its Secret. Takes [root, service]. */}}
{{- define "mintmark.dsn" -}}
{{- $root := index . 0 -}}
{{- $service := index . 1 -}}
- name: MINTMARK_{{ upper $service }}_DSN
  valueFrom: {secretKeyRef: {name: {{ $root.Values.database.secretPrefix }}{{ $service }}, key: {{ $root.Values.database.dsnKey }}}}
{{- end -}}

{{/* How Kafka and Postgres are reached, for whoever reaches them. */}}
{{- define "mintmark.backingEnv" -}}
{{- with .Values.kafka }}
- {name: MINTMARK_KAFKA_BOOTSTRAP, value: {{ .bootstrap | quote }}}
- {name: MINTMARK_KAFKA_REPLICATION, value: {{ .replication | quote }}}
- {name: MINTMARK_KAFKA_SECURITY_PROTOCOL, value: {{ .securityProtocol }}}
{{- if .topicPrefix }}
- {name: MINTMARK_KAFKA_TOPIC_PREFIX, value: {{ .topicPrefix | quote }}}
{{- end }}
{{- if .partitions }}
- {name: MINTMARK_KAFKA_PARTITIONS, value: {{ .partitions | quote }}}
{{- end }}
{{- if hasPrefix "SASL_" .securityProtocol }}
- {name: MINTMARK_KAFKA_SASL_MECHANISM, value: {{ .sasl.mechanism }}}
- name: MINTMARK_KAFKA_SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ .sasl.existingSecret }}, key: {{ .sasl.usernameKey }}}}
- name: MINTMARK_KAFKA_SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .sasl.existingSecret }}, key: {{ .sasl.passwordKey }}}}
{{- end }}
{{- if .ca.existingSecret }}
- {name: MINTMARK_KAFKA_CA_FILE, value: /etc/mintmark/kafka-ca/{{ .ca.key }}}
{{- end }}
{{- end }}
{{- with .Values.database.ca }}
{{- if .existingSecret }}
- {name: PGSSLMODE, value: verify-full}
- {name: PGSSLROOTCERT, value: /etc/mintmark/database-ca/{{ .key }}}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "mintmark.backingMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.kafka.ca.existingSecret }}
- {name: kafka-ca, mountPath: /etc/mintmark/kafka-ca, readOnly: true}
{{- end }}
{{- if .Values.database.ca.existingSecret }}
- {name: database-ca, mountPath: /etc/mintmark/database-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "mintmark.backingVolumes" -}}
- {name: tmp, emptyDir: {}}
{{- with .Values.kafka.ca.existingSecret }}
- {name: kafka-ca, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- with .Values.database.ca.existingSecret }}
- {name: database-ca, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- end -}}

{{- define "mintmark.artefactsClaim" -}}
{{ .Values.artefacts.volume.existingClaim | default (printf "%s-artefacts" (include "mintmark.fullname" .)) }}
{{- end -}}
