"""Write what the Helm chart knows of the processes from their one table: `python -m deploy.build.chart`.

The chart's templates go over `files/topology.json`, `values.schema.json` knows the settings by it, and the README has
the values as `values.yaml` describes them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from deploy.build.chart_settings import TRACE_SECRETS, TRACES, bounds, described, settings_schema
from deploy.local.topology import (
    CATALOGUE_KEPT,
    DATABASE,
    EDGE,
    INFERENCE,
    INTERNAL_PORT,
    PROCESSES,
    STORE,
    TEXT,
    Process,
    processes_of,
)
from gateway.settings import EdgeSettings
from inference.settings import InferenceSettings
from services.auth.settings import AuthSettings
from services.common.settings import Settings
from services.desk.settings import DeskSettings
from services.image.settings import ImageSettings
from services.router.settings import RouterSettings
from services.tasks.settings import TaskSettings
from services.text.settings import TextSettings

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "moa"
TOPOLOGY: Final = CHART / "files" / "topology.json"
SCHEMA: Final = CHART / "values.schema.json"
VALUES: Final = CHART / "values.yaml"
README: Final = CHART / "README.md"
CATALOGUE: Final = ROOT / "gateway" / "catalogue.yaml"

SETTINGS: Final[dict[str, type[Settings]]] = {
    "services.auth": AuthSettings,
    "services.text": TextSettings,
    "services.image": ImageSettings,
    "inference": InferenceSettings,
    "services.router": RouterSettings,
    "services.colocated": RouterSettings,
    "services.desk": DeskSettings,
    "services.tasks": TaskSettings,
    "gateway": EdgeSettings,
}
"""What each module reads."""

_NO_SETTING: Final = ("HF_TOKEN_PATH", "MOA_TLS_KEY")
"""Secrets that are files: the chart mounts them."""
_BY_CHART: Final = {
    "MOA_CATALOGUE": "catalogue",
    "MOA_CATALOGUE_KEPT": "",
    "MOA_CONNECTION_AGE_S": "connectionAgeSeconds",
    "MOA_DRAIN_S": "drainSeconds",
    "MOA_EDGE_ADDRESSES": "",
    "MOA_EDGE_LOOK_S": "",
    "MOA_EDGE_PROCESSES": "processes.edge.replicas",
    "MOA_HEALTH_LISTEN": "",
    "MOA_INFERENCE_POOLS": "inference.pools",
    "MOA_POLICIES": "policies",
    "MOA_POOL": "inference.pools",
    "MOA_SERVICE_TLS_DIR": "serviceTLS",
    "MOA_SERVICE_TLS_NAME": "serviceTLS",
    "MOA_SERVICE_TOKEN_FILE": "secrets.credentials",
    "MOA_STORE_BUCKET": "store.bucket",
    "MOA_STORE_DIR": "store.volume",
    "MOA_STORE_ENDPOINT": "store.endpoint",
    "MOA_STORE_REGION": "store.region",
    "MOA_VARIABLES_SET": "secrets.providersSet",
    "MOA_ZONE": "zones",
}
"""The value that says it; empty: the chart itself does."""
_ELSEWHERE: Final = {
    "AWS_REGION": "providerSettings",
    "HF_HOME": "inference.pools.<pool>.cache",
    "MOA_AWS_INSTANCE_ROLE": "providerSettings",
    "MOA_AZURE_MANAGED_IDENTITY": "providerSettings",
    "MOA_DATABASE_URL": "database.existingSecret, whose key database.key has the address,",
    "MOA_HOST": "service",
    "MOA_LARGE_ROUTERS": "processes.largerouter.replicas",
    "MOA_PORT": "service.port",
    "MOA_ROUTERS": "processes.router.replicas",
    "MOA_TLS_CERT": "tls.secret",
    "MOA_TLS_KEY": "tls.secret",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "traces.endpoint",
    "OTEL_TRACES_SAMPLER": "traces.sampler",
    "OTEL_TRACES_SAMPLER_ARG": "traces.samplerArg",
}
"""What the README names, and no process of the chart is told as a setting."""
_VARIABLE: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]*)")
_VALUES_MARK: Final = "<!-- Written by `python -m deploy.build.chart` from values.yaml, to the end of the file. -->"
_LONGEST_DEFAULT: Final = 70
_HEAD: Final = {
    "written": "by `python -m deploy.build.chart` from deploy/local/topology.py; a test holds it against that"
}


def secrets_of(process: Process) -> list[str]:
    """Return the variables of a process that are secrets, in the order of their names."""
    fields = SETTINGS[process.module].model_fields
    variables = {*process.shared, *process.optional, *process.calls, *(STORE if process.store else ())}
    named = {f"MOA_{name}".upper() for name, field in fields.items() if _is_secret(field.annotation)}
    found = (named & variables) | {name for name in process.secrets if name not in _NO_SETTING}
    return sorted(found | {name for name in variables if name.startswith("AWS_")})


def settings_of(process: Process) -> list[str]:
    """Return the variables that an operator may set for a process and that are no secrets."""
    variables = {*process.shared, *process.optional, *(STORE if process.store else ())}
    return sorted(variables - set(secrets_of(process)) - set(_BY_CHART) - set(_NO_SETTING))


def _all_settings() -> list[str]:
    return sorted({name for process in PROCESSES for name in settings_of(process)})


def _of_providers() -> list[str]:
    """Return the variables by which the catalogue's providers are configured."""
    rows = msgspec.yaml.decode(CATALOGUE.read_bytes())["providers"]
    ways = [way for row in rows for way in (row.get("credentials", {}), *row.get("alternatives", ()))]
    addresses = [row.get("base_url", "") for row in rows]
    return sorted({name for way in ways for name in way.values()} | set(_VARIABLE.findall("".join(addresses))))


def topology() -> dict[str, Any]:
    """Return the table as the chart's templates read it."""
    colocated = {process.name: _described(process) for process in processes_of({"MOA_COLOCATE": TEXT.name})}
    usual = {process.name: _described(process) for process in PROCESSES}
    return {
        "processes": usual,
        # With MOA_COLOCATE=text: what is other than above, and null where there is no such process.
        "colocated": {name: colocated.get(name) for name in usual if colocated.get(name) != usual[name]},
        "bounds": bounds(_all_settings(), SETTINGS.values()),
        "providers": _of_providers(),
        "traces": {"settings": sorted(TRACES), "secrets": list(TRACE_SECRETS)},
        "elsewhere": {name: value for name, value in {**_BY_CHART, **_ELSEWHERE}.items() if value},
    }


def _described(process: Process) -> dict[str, Any]:
    callers = [other.name for other in PROCESSES if process.name in other.calls.values()]
    return {
        "module": process.module,
        "port": process.port,
        "publicPort": process.public_port or 0,
        "healthPort": process.health_port if process.serves_grpc else 0,
        "certificateName": process.certificate_name,
        "metricsPort": INTERNAL_PORT if process is EDGE else process.metrics_port,
        "calls": {name: callee for name, callee in process.calls.items() if callee != DATABASE},
        "callers": callers,
        "database": process.needs_database,
        "settings": settings_of(process),
        "secrets": secrets_of(process),
        "catalogue": "MOA_CATALOGUE" in process.shared,
        "policies": "MOA_POLICIES" in process.optional,
        "named": "MOA_VARIABLES_SET" in process.shared,
        "fixed": dict(process.fixed),
        "folders": dict(process.folders),
        "providers": process.providers,
        "store": process.store,
        "keeps": CATALOGUE_KEPT in process.optional,
        "standsIn": process.stands_in,
        "zoned": "MOA_ZONE" in process.optional,
        "grpc": process.serves_grpc,
        "torch": process is INFERENCE,
    }


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in getattr(annotation, "__args__", ())


def rendered() -> str:
    """Return the file of the table."""
    return json.dumps(_HEAD | topology(), indent=1) + "\n"


def schema(text: str) -> str:
    """Return the values' schema with the settings and processes of now, and what `values.yaml` says of each value."""
    found = json.loads(text)
    found["$defs"]["settings"] = settings_schema(_all_settings(), SETTINGS.values())
    found["$defs"]["process"]["enum"] = [process.name for process in PROCESSES if process is not INFERENCE]
    values = msgspec.yaml.decode(VALUES.read_bytes())
    _require(found, values)
    for path, words in described(VALUES).items():
        at = _at(found, path)
        if at is not None:
            at["description"] = words
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _require(schema: dict[str, Any], values: dict[str, Any]) -> None:
    """Have a schema miss what `null` took away: templates go by what there is by default."""
    if "properties" in schema:
        schema["required"] = sorted(values)
        for name, value in values.items():
            if isinstance(value, dict):
                _require(schema["properties"][name], value)


def _at(schema: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """Return where a schema tells of a value itself; None where it does so for several."""
    for key in path:
        schema = schema.get("properties", {}).get(key)
        if schema is None:
            return None
    return schema


def readme(text: str) -> str:
    """Return the chart's README with the values of now, as `values.yaml` says them."""
    head, _, _ = text.partition(_VALUES_MARK)
    values = msgspec.yaml.decode(VALUES.read_bytes())
    rows = [
        f"| `{'.'.join(path)}` | {_shown(_found(values, path))} | {words.replace('<', '&lt;')} |"
        for path, words in described(VALUES).items()
    ]
    return "\n".join([head + _VALUES_MARK, "", "| value | default | what it is |", "|---|---|---|", *rows, ""])


def _found(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def _shown(value: Any) -> str:
    """Return a default as YAML has it in a line; a map that would fill one is left to its file."""
    text = json.dumps(value, ensure_ascii=False)
    return "a map" if isinstance(value, dict) and len(text) > _LONGEST_DEFAULT else f"`{text}`"


def main() -> None:
    """Write the three files."""
    TOPOLOGY.write_text(rendered())
    SCHEMA.write_text(schema(SCHEMA.read_text()))
    README.write_text(readme(README.read_text()))


if __name__ == "__main__":
    main()
