{{/*
What the processes differ in, and all that they differ in:
  command, port, live, ready   how it is started and asked
  grpc                         its second port, of gRPC
  dsn                          whose database role it uses; none: it has no database
  artefacts                    it reads or writes the artefact store
  signs                        it has a signing key of its own
  seals                        it knows the master key that providers' keys are sealed with
  token                        it shares the token that loads models
  keys                         it knows the API keys; every process knows whom to trust
*/}}
{{- define "mintmark.processes" -}}
{{- $services := dict
      "registry" (dict "artefacts" true "signs" true)
      "prompts" (dict "artefacts" true "signs" true)
      "evaluator" (dict "artefacts" true)
      "deployer" (dict "artefacts" true "signs" true "token" true)
      "router" (dict "artefacts" true "signs" true "seals" true)
      "policy" (dict "signs" true) -}}
{{- $processes := dict
      "gateway" (dict "command" (list "python" "-m" "services.router.gateway") "port" 8710 "grpc" 8711 "live" "/livez" "ready" "/readyz" "dsn" "router" "keys" true "seals" true)
      "model-server" (dict "command" (list "python" "-m" "services.deployer.model_server" "--host" "0.0.0.0" "--port" "8720" "--repository" "/data/models" "--trust" "/etc/mintmark/keys/trust.json" "--token-file" "/etc/mintmark/model-server/token")
        "port" 8720 "live" "/v2/health/live" "ready" "/v2/health/ready" "token" true) -}}
{{- range $name, $own := $services -}}
{{- $common := dict "command" (list "python" "-m" "services" $name "--host" "0.0.0.0" "--port" "8700") "port" 8700 "live" "/livez" "ready" "/readyz" "dsn" $name "keys" true -}}
{{- $_ := set $processes $name (merge $own $common) -}}
{{- end -}}
{{ toYaml $processes }}
{{- end -}}

{{/* Environment of one process. Takes [root, name, process]. */}}
{{- define "mintmark.environment" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $process := index . 2 -}}
{{- $unverified := $root.Values.policy.unverifiedAuthor -}}
- {name: MINTMARK_URL, value: {{ $root.Values.url | quote }}}
- {name: MINTMARK_GATEWAY_URL, value: {{ $root.Values.gatewayUrl | quote }}}
- {name: MINTMARK_TRUST_FILE, value: /etc/mintmark/keys/trust.json}
- {name: MINTMARK_MIGRATE_ON_START, value: "false"}
{{- if $process.keys }}
- {name: MINTMARK_KEYS_FILE, value: /etc/mintmark/keys/keys.json}
{{- with $root.Values.identity.oidc }}
{{- if .issuer }}
- {name: MINTMARK_OIDC_ISSUER, value: {{ .issuer | quote }}}
- {name: MINTMARK_OIDC_AUDIENCE, value: {{ .audience | quote }}}
{{- with .jwksUrl }}
- {name: MINTMARK_OIDC_JWKS_URL, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if $process.dsn }}
{{ include "mintmark.dsn" (list $root $process.dsn) }}
{{ include "mintmark.backingEnv" $root | trim }}
{{- else }}
{{- with $root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- if $process.artefacts }}
{{- with $root.Values.artefacts }}
{{- if .s3.bucket }}
- {name: MINTMARK_ARTEFACTS, value: {{ printf "s3://%s/%s" .s3.bucket .s3.prefix | trimSuffix "/" | quote }}}
{{- with .s3.endpoint }}
- {name: MINTMARK_S3_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .s3.region }}
- {name: AWS_REGION, value: {{ . | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- else }}
- {name: MINTMARK_ARTEFACTS, value: file:///data/artefacts}
{{- end }}
{{- end }}
{{- end }}
{{- if $process.signs }}
- {name: MINTMARK_{{ upper $name }}_SIGNING_KEY_FILE, value: /etc/mintmark/signing/{{ $root.Values.identity.signing.key }}}
{{- end }}
{{- if $process.seals }}
{{- with $root.Values.providers }}
{{- if .masterKey.existingSecret }}
- {name: MINTMARK_ROUTER_MASTER_KEY_FILE, value: /etc/mintmark/master-key/master-key.json}
{{- end }}
{{- if .masterKey.kms }}
- {name: MINTMARK_ROUTER_MASTER_KEY_KMS, value: {{ .masterKey.kms | quote }}}
{{- end }}
- {name: MINTMARK_ROUTER_PROVIDER_NETWORKS, value: {{ join "," .networks | quote }}}
{{- end }}
{{- end }}
{{- if eq $name "registry" }}
- {name: MINTMARK_REGISTRY_REQUIRE_PROOF, value: {{ eq $unverified "reject" | quote }}}
{{- else if eq $name "router" }}
- {name: MINTMARK_ROUTER_REQUIRE_PROOF, value: {{ eq $unverified "reject" | quote }}}
- {name: MINTMARK_ROUTER_GATEWAY_URL, value: http://{{ include "mintmark.fullname" $root }}-gateway:8710}
{{- else if eq $name "evaluator" }}
- {name: MINTMARK_EVALUATOR_GATEWAY_URL, value: http://{{ include "mintmark.fullname" $root }}-gateway:8710}
{{- with $root.Values.evaluations }}
{{- if .answersGroup }}
- {name: MINTMARK_EVALUATOR_ANSWERS_GROUP, value: {{ .answersGroup | quote }}}
{{- end }}
{{- if .gatewayKey.existingSecret }}
- name: MINTMARK_EVALUATOR_GATEWAY_KEY
  valueFrom: {secretKeyRef: {name: {{ .gatewayKey.existingSecret }}, key: {{ .gatewayKey.key }}}}
{{- end }}
{{- end }}
{{- else if eq $name "policy" }}
- {name: MINTMARK_POLICY_UNVERIFIED_AUTHOR, value: {{ $unverified }}}
{{- else if eq $name "deployer" }}
- {name: MINTMARK_DEPLOYER_UNVERIFIED, value: {{ ternary "allow" "refuse" (eq $unverified "allow") }}}
- {name: MINTMARK_DEPLOYER_MODEL_SERVER_URL, value: http://{{ include "mintmark.fullname" $root }}-model-server:8720}
- {name: MINTMARK_DEPLOYER_MODEL_SERVER_TOKEN_FILE, value: /etc/mintmark/model-server/token}
{{- else if eq $name "gateway" }}
- {name: MINTMARK_GATEWAY_HOST, value: 0.0.0.0}
- {name: MINTMARK_GATEWAY_PORT, value: "8710"}
- {name: MINTMARK_GATEWAY_GRPC_PORT, value: {{ $process.grpc | quote }}}
{{- end }}
{{- with (index $root.Values.processes $name).env }}
{{ toYaml . }}
{{- end }}
{{- end -}}
