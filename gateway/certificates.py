"""By what the edge and the services know each other: certificates that Envoy reads anew when they are replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from gateway.settings import AUTHORITIES, CHAIN, KEY, EdgeSettings

Json = dict[str, Any]

_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_OWN, _TRUSTED = "service_certificate", "service_authorities"


def secrets(settings: EdgeSettings) -> dict[str, Json]:
    """Return what Envoy is told of the files, by the name of the file that it watches for it; nothing without TLS.

    It reads certificates again where something is moved into their folder, as a kubelet does, and only those that are
    in a watched file of their own.
    """
    if settings.service_tls_dir is None:
        return {}
    folder = settings.service_tls_dir.resolve()
    watched = {"watched_directory": {"path": str(folder)}}
    return {
        f"{_OWN}.json": {
            "@type": f"{_TLS}Secret",
            "name": _OWN,
            "tls_certificate": {
                "certificate_chain": {"filename": str(folder / CHAIN)},
                "private_key": {"filename": str(folder / KEY)},
                **watched,
            },
        },
        f"{_TRUSTED}.json": {
            "@type": f"{_TLS}Secret",
            "name": _TRUSTED,
            "validation_context": {"trusted_ca": {"filename": str(folder / AUTHORITIES)}, **watched},
        },
    }


def transport(settings: EdgeSettings, process: str) -> Json:
    """Return what a cluster's connections are: to a process that its certificate names; nothing without TLS."""
    if settings.service_tls_dir is None:
        return {}
    folder = settings.edge_dir.resolve()
    name = settings.service_tls_name.format(process)
    by_name = [{"san_type": "DNS", "matcher": {"exact": name}}]
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TLS}UpstreamTlsContext",
                "sni": name,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificate_sds_secret_configs": [_secret(folder, _OWN)],
                    "combined_validation_context": {
                        "default_validation_context": {"match_typed_subject_alt_names": by_name},
                        "validation_context_sds_secret_config": _secret(folder, _TRUSTED),
                    },
                },
            },
        }
    }


def _secret(folder: Path, name: str) -> Json:
    source = {"path_config_source": {"path": str(folder / f"{name}.json")}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}
