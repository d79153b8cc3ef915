"""What operators take of the chart's objects: their own schemas ship with them, in no package that a test could pin.

Each is written down here by the operator's documented API, with those of its fields that the chart uses, and no other
is let through: a field that is misspelled, of the wrong kind, or new to the chart is found. Where a user's values are
passed on as they are (`cloudNativePG.spec`), what is in them is the operator's to judge.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import jsonschema

_TEXT: Final = {"type": "string", "minLength": 1}
_COUNT: Final = {"type": "integer", "minimum": 0}
_SIZE: Final = {"type": "string", "pattern": r"^[0-9.]+(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_GO_DURATION: Final = {"type": "string", "pattern": r"^([0-9]+(ms|h|m|s))+$"}
_PROMETHEUS_DURATION: Final = {"type": "string", "pattern": r"^([0-9]+(ms|y|w|d|h|m|s))+$"}
_GATEWAY_DURATION: Final = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def _has(*required: str, **fields: Any) -> dict[str, Any]:
    """Return the schema of an object with these fields and no others."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": fields}


def _one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


_SELECTOR: Final = _has(
    matchLabels=_TEXTS,
    matchExpressions=_list(
        _has(
            *("key", "operator"),
            key=_TEXT,
            operator=_one_of("In", "NotIn", "Exists", "DoesNotExist"),
            values=_list(_TEXT),
        )
    ),
)

_SPECS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    # CloudNativePG: cloudnative-pg.io/docs, "API Reference", ClusterSpec (`dataDurability` from 1.25).
    ("postgresql.cnpg.io/v1", "Cluster"): _has(
        *("instances", "storage"),
        instances={"type": "integer", "minimum": 1},
        bootstrap=_has(initdb=_has("database", "owner", database=_TEXT, owner=_TEXT)),
        storage=_has("size", size=_SIZE, storageClass=_TEXT),
        postgresql=_has(
            parameters=_TEXTS,
            synchronous=_has(
                *("method", "number"),
                method=_one_of("any", "first"),
                number={"type": "integer", "minimum": 1},
                dataDurability=_one_of("required", "preferred"),
            ),
        ),
        resources=_has(requests={"type": "object"}, limits={"type": "object"}),
    ),
    # External Secrets: external-secrets.io, "API", ExternalSecret (v1 from 0.16).
    ("external-secrets.io/v1", "ExternalSecret"): _has(
        refreshInterval=_GO_DURATION,
        secretStoreRef=_has("name", kind=_one_of("SecretStore", "ClusterSecretStore"), name=_TEXT),
        target=_has(name=_TEXT, creationPolicy=_one_of("Owner", "Orphan", "Merge", "None")),
        dataFrom=_list(_has(extract=_has("key", key=_TEXT))),
    ),
    # cert-manager: cert-manager.io/docs/reference/api-docs, CertificateSpec.
    ("cert-manager.io/v1", "Certificate"): _has(
        *("secretName", "issuerRef"),
        secretName=_TEXT,
        dnsNames=_list(_TEXT),
        usages=_list(_one_of("digital signature", "key encipherment", "server auth", "client auth")),
        privateKey=_has(
            algorithm=_one_of("RSA", "ECDSA", "Ed25519"), size=_COUNT, rotationPolicy=_one_of("Never", "Always")
        ),
        duration=_GO_DURATION,
        renewBefore=_GO_DURATION,
        issuerRef=_has("name", kind=_one_of("Issuer", "ClusterIssuer"), name=_TEXT),
    ),
    # Gateway API: gateway-api.sigs.k8s.io/reference/spec, HTTPRouteSpec (`timeouts` in the standard channel from 1.2).
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): _has(
        parentRefs=_list(_has("name", name=_TEXT, namespace=_TEXT, sectionName=_TEXT, port=_COUNT)),
        hostnames=_list({"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}),
        rules=_list(
            _has(
                timeouts=_has(request=_GATEWAY_DURATION, backendRequest=_GATEWAY_DURATION),
                backendRefs=_list(_has("name", name=_TEXT, port={"type": "integer", "minimum": 1, "maximum": 65535})),
            )
        ),
    ),
    # The same, BackendTLSPolicySpec (v1 from 1.4).
    ("gateway.networking.k8s.io/v1", "BackendTLSPolicy"): _has(
        *("targetRefs", "validation"),
        targetRefs=_list(
            _has(*("group", "kind", "name"), group={"const": ""}, kind=_TEXT, name=_TEXT, sectionName=_TEXT)
        ),
        validation=_has(
            "hostname",
            hostname=_TEXT,
            wellKnownCACertificates=_one_of("System"),
            caCertificateRefs=_list(_has(*("group", "kind", "name"), group={"const": ""}, kind=_TEXT, name=_TEXT)),
        ),
    ),
    # KEDA: keda.sh/docs, "ScaledObject specification" and "Prometheus"; what a trigger is told is text.
    ("keda.sh/v1alpha1", "ScaledObject"): _has(
        *("scaleTargetRef", "triggers"),
        scaleTargetRef=_has("name", apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
        minReplicaCount=_COUNT,
        maxReplicaCount=_COUNT,
        pollingInterval=_COUNT,
        cooldownPeriod=_COUNT,
        triggers=_list(
            _has(
                *("type", "metadata"),
                type=_one_of("prometheus"),
                metricType=_one_of("AverageValue", "Value"),
                metadata=_has(
                    *("serverAddress", "query", "threshold"), serverAddress=_TEXT, query=_TEXT, threshold=_TEXT
                ),
            )
        ),
    ),
    # Prometheus' operator: prometheus-operator.dev/docs/api-reference.
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _has(
        *("selector", "endpoints"),
        selector=_SELECTOR,
        jobLabel=_TEXT,
        endpoints=_list(_has(port=_TEXT, path=_TEXT, interval=_PROMETHEUS_DURATION)),
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): _has(
        "selector", selector=_SELECTOR, podMetricsEndpoints=_list(_has(port=_TEXT, interval=_PROMETHEUS_DURATION))
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _has(
        groups=_list(
            _has(
                *("name", "rules"),
                name=_TEXT,
                rules=_list(
                    _has(
                        *("alert", "expr"),
                        alert=_TEXT,
                        expr=_TEXT,
                        labels=_TEXTS,
                        annotations=_TEXTS,
                        **{"for": _PROMETHEUS_DURATION},
                    )
                ),
            )
        )
    ),
}


def knows(found: dict[str, Any]) -> bool:
    """Return whether an object is an operator's."""
    return (found["apiVersion"], found["kind"]) in _SPECS


def validate(found: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError for an object that its operator does not take."""
    _validator(found["apiVersion"], found["kind"]).validate(found)


@functools.cache
def _validator(version: str, kind: str) -> jsonschema.Draft202012Validator:
    metadata = _has("name", name=_TEXT, labels=_TEXTS, annotations=_TEXTS)
    whole = _has("metadata", "spec", apiVersion=_TEXT, kind=_TEXT, metadata=metadata, spec=_SPECS[version, kind])
    return jsonschema.Draft202012Validator(whole)
