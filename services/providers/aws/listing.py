"""The models that Bedrock lists in a region: those that are asked by their own id, and inference profiles.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListFoundationModels.html and API_ListInferenceProfiles.html
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from yarl import URL

from services.catalogue import ListedModel, Provider
from services.common.errors import MoaError
from services.providers.http.client import Outgoing
from services.providers.listing import Steps, read

_PAGE: Final = 1000
_SEES: Final = frozenset({"vision"})
_MAKES: Final = {"TEXT": "text", "IMAGE": "image", "EMBEDDING": "embedding"}


class _Model(Struct, rename="camel"):
    model_id: str
    input_modalities: tuple[str, ...] = ()
    output_modalities: tuple[str, ...] = ()
    inference_types_supported: tuple[str, ...] = ("ON_DEMAND",)


class _Models(Struct, rename="camel"):
    model_summaries: list[_Model]


class _ProfileModel(Struct, rename="camel"):
    model_arn: str = ""


class _Profile(Struct, rename="camel"):
    inference_profile_id: str
    inference_profile_arn: str = ""
    models: tuple[_ProfileModel, ...] = ()
    status: str = "ACTIVE"
    type: str = "SYSTEM_DEFINED"


class _Profiles(Struct, rename="camel"):
    inference_profile_summaries: list[_Profile] = []
    next_token: str | None = None


def list_models(provider: Provider) -> Steps:
    """List the region's models and the account's inference profiles, those only where they may be listed."""
    base = provider.base_url.rstrip("/").replace("//bedrock-runtime.", "//bedrock.", 1)
    models = read((yield Outgoing(URL(f"{base}/foundation-models"), b"", {}, "GET")), _Models).model_summaries
    known = {model.model_id: _listed(model) for model in models}
    found = [known[model.model_id] for model in models if "ON_DEMAND" in model.inference_types_supported]
    url = URL(f"{base}/inference-profiles").with_query(maxResults=str(_PAGE))
    while True:
        try:
            page = read((yield Outgoing(url, b"", {}, "GET")), _Profiles)
        except MoaError:
            return found
        active = (profile for profile in page.inference_profile_summaries if profile.status == "ACTIVE")
        found += [_of_profile(profile, known) for profile in active]
        if not page.next_token:
            return found
        url = url.update_query(nextToken=page.next_token)


def _listed(model: _Model) -> ListedModel:
    made = [_MAKES[word] for word in model.output_modalities if word in _MAKES]
    makes = made[0] if made else "other" if model.output_modalities else ""
    sees = makes == "text" and "IMAGE" in model.input_modalities
    return ListedModel(id=model.model_id, makes=makes, capabilities=_SEES if sees else frozenset())


def _of_profile(profile: _Profile, known: dict[str, ListedModel]) -> ListedModel:
    """Return a profile as a model: what it can do is its model's. One of the account's own is asked for by its ARN."""
    model = profile.models[0].model_arn.rpartition("/")[2] if profile.models else ""
    behind = known.get(model, ListedModel(id=model))
    own = profile.type != "SYSTEM_DEFINED"
    return ListedModel(
        id=profile.inference_profile_arn if own else profile.inference_profile_id,
        base=model if own else "",
        makes=behind.makes,
        capabilities=behind.capabilities,
    )
